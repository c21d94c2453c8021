"""The front of reward against KL: where each variant ended, and the way it took in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mht.reports.figures.canvas import arms, heading, opened, png, running_mean
from mht.reports.figures.palette import Palette
from mht.reports.guard import KL_TO_BASE, TRAINED
from mht.reports.learning.curves import Band

Point = tuple[Mapping[str, float], Mapping[str, float]]  # KL and reward: mean, low, high
Path = tuple[list[float], list[float]]  # KL and reward along training
SCORE, KL = "ppo/score/mean", "ppo/kl/k1_nats"


def reward_of(summaries: Sequence[Mapping[str, Any]]) -> str | None:
    """The trained reward's metric, if it and the KL were measured of every variant."""
    return next(
        (name for name in TRAINED if all({name, KL_TO_BASE} <= s.keys() for s in summaries)), None
    )


def paths(curves: Mapping[str, Mapping[str, Band]]) -> dict[str, Path]:
    """From the logs of the PPO steps: running means of KL to the reference and batch reward."""
    found = {}
    for variant, columns in curves.items():
        if {SCORE, KL} <= columns.keys():
            kl, score = columns[KL], columns[SCORE]
            if np.array_equal(kl.steps, score.steps):
                means = (running_mean(own.middle.tolist()) for own in (kl, score))
                found[variant] = (next(means), next(means))
    return found


def figure(
    points: Mapping[str, Point],
    ways: Mapping[str, Path],
    label: str,
    colours: Palette,
    split: str = "test",
) -> bytes:
    """A PNG with a panel of the ends on a split's prompts and, where known, one of the ways.

    Args:
        points: variant to KL to the base model and reward, each with its interval.
        ways: variant to KL to its own reference and reward in training.
        label: of the reward.
        colours: of variants, paper and ink.
        split: whose prompts.
    """

    def draw(canvas: Any) -> None:
        axes = canvas.subplots(1, 1 + bool(ways), squeeze=False)[0]
        _ends(axes[0], points, colours)
        axes[0].set_xlabel("KL to the base model (nats per response)")
        axes[0].set_ylabel(label)
        axes[0].set_title(f"Where each ended, {split} prompts", loc="left", fontsize=10.5)
        if ways:
            _ways(axes[1], ways, colours)
            axes[1].set_xlabel("KL to the reference, where PPO began (nats)")
            axes[1].set_ylabel("Reward while training")
            axes[1].set_title("The way there", loc="left", fontsize=10.5)
        for axis in axes:
            opened(axis, colours)
        heading(canvas, "What a nat of drift bought", "up and to the left is better", colours)

    return png(draw, (10.2 if ways else 6.6, 4.2), colours)


def _ends(axis: Any, points: Mapping[str, Point], colours: Palette) -> None:
    for name, (x, y) in points.items():
        axis.errorbar(
            x["mean"], y["mean"], xerr=arms(x), yerr=arms(y), fmt="o", markersize=8,
            color=colours.marks[name], elinewidth=1.4,
        )  # fmt: skip
    axis.margins(x=0.2, y=0.14)
    means = {name: (x["mean"], y["mean"]) for name, (x, y) in points.items()}
    _label(axis, means, colours)


def _ways(axis: Any, ways: Mapping[str, Path], colours: Palette) -> None:
    for name, (kl, score) in ways.items():
        axis.plot(kl, score, color=colours.marks[name], linewidth=1.8, marker="o", markersize=2.5)
        axis.plot(kl[-1], score[-1], "o", color=colours.marks[name], markersize=7)
    axis.margins(x=0.2, y=0.14)
    _label(axis, {name: (kl[-1], score[-1]) for name, (kl, score) in ways.items()}, colours)


def _label(axis: Any, places: Mapping[str, tuple[float, float]], colours: Palette) -> None:
    corners = _corners(axis, list(places.values()))
    for (name, at), corner in zip(places.items(), corners, strict=True):
        axis.annotate(
            name, at, (9 * corner[0], 9 * corner[1]), textcoords="offset points",
            ha="left" if corner[0] > 0 else "right", va="center",
            color=colours.marks[name], fontweight="bold", parse_math=False,
        )  # fmt: skip


def _corners(axis: Any, points: list[tuple[float, float]]) -> list[tuple[int, int]]:
    """For each point the first corner where its label meets no other point or label."""
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    places = [((x - left) / (right - left), (y - low) / (high - low)) for x, y in points]
    taken = list(places)
    chosen = []
    for x, y in places:
        boxes = {(h, v): (x + 0.09 * h, y + 0.045 * v) for v in (1, -1) for h in (1, -1)}
        others = [place for place in taken if place != (x, y)]
        free = [corner for corner, box in boxes.items() if not any(_meet(box, o) for o in others)]
        chosen.append(free[0] if free else (1, 1))
        taken.append(boxes[chosen[-1]])
    return chosen


def _meet(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether labels at two places, in shares of the axes, would touch."""
    return abs(a[0] - b[0]) < 0.18 and abs(a[1] - b[1]) < 0.06
