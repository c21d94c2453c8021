"""Learning curves over training seeds: means with bands, against the optimiser steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mht.evaluation.statistics import Floats, Interval
from mht.reports.figures.canvas import heading, opened, png
from mht.reports.over_seeds import seeds_interval

Row = Mapping[str, float]
Looks = Mapping[str, Sequence[Sequence[Row]]]  # variant -> seed -> looks at the validation prompts
PANELS = {
    "score": "Reward",
    "kl_nats": "KL to the reference (nats)",
    "length_tokens": "Response length (tokens)",
    "sft_loss": "Validation SFT loss",
}
STEPS = "optimizer_steps"
ORIGIN = 1e-3  # nats: the policy still is its reference


def figure(looks: Looks, colours: Mapping[str, str], resamples: int = 500) -> bytes | None:
    """A PNG with a panel per known figure: the mean over seeds and its 95% interval as a band.

    None where no variant has two looks that all its seeds share.
    """
    drawn = {key: _curves(looks, key, resamples) for key in PANELS}
    shown = [key for key, curves in drawn.items() if curves]
    if not shown:
        return None
    width = min(2, len(shown))
    rows = math.ceil(len(shown) / width)

    def draw(canvas: Any) -> None:
        axes = list(canvas.subplots(rows, width, squeeze=False).flat)
        for axis in axes[len(shown) :]:
            axis.set_visible(False)
        for axis, key in zip(axes, shown, strict=False):
            _panel(axis, PANELS[key], drawn[key], colours)
        names = dict.fromkeys(name for curves in drawn.values() for name in curves)
        lines = [axes[0].plot([], [], color=colours[name], linewidth=2)[0] for name in names]
        canvas.legend(lines, list(names), loc="outside lower center", ncols=5, frameon=False)
        heading(canvas, "How training went", "line: mean over seeds; band: 95% interval", colours)

    return png(draw, (4.9 * width + 0.3, 2.7 * rows + 1.0), colours)


def ways(looks: Looks) -> dict[str, tuple[list[float], list[float]]]:
    """KL to the reference and reward, means over seeds, from where PPO began; of those with PPO."""
    found = {}
    for name, seeds in looks.items():
        kl, score, tokens = (_table(seeds, key) for key in ("kl_nats", "score", "sampled_tokens"))
        if kl is None or score is None or tokens is None or not tokens[:, -1].any():
            continue
        means = kl.mean(axis=0)
        still = np.flatnonzero(np.abs(means) < ORIGIN)
        start = int(still[-1]) if len(still) else 0
        found[name] = (means[start:].tolist(), score.mean(axis=0)[start:].tolist())
    return found


def _curves(looks: Looks, key: str, resamples: int) -> dict[str, tuple[Floats, list[Interval]]]:
    found = {}
    for name, seeds in looks.items():
        values, steps = _table(seeds, key), _table(seeds, STEPS)
        if values is None or steps is None or (steps != steps[0]).any() or len(steps[0]) < 2:
            continue
        points = [seeds_interval(column[None, :, None], resamples=resamples) for column in values.T]
        found[name] = (steps[0], points)
    return found


def _table(seeds: Sequence[Sequence[Row]], key: str) -> Floats | None:
    """(S, L) values of the looks that all seeds have; None where one lacks the key."""
    looks = min((len(rows) for rows in seeds), default=0)
    if not looks or any(key not in row for rows in seeds for row in rows[:looks]):
        return None
    return np.array([[row[key] for row in rows[:looks]] for rows in seeds], float)


def _panel(
    axis: Any,
    title: str,
    curves: Mapping[str, tuple[Floats, list[Interval]]],
    colours: Mapping[str, str],
) -> None:
    for name, (steps, points) in curves.items():
        mean, low, high = np.array(points).T
        axis.fill_between(steps, low, high, color=colours[name], alpha=0.2, linewidth=0)
        axis.plot(steps, mean, color=colours[name], linewidth=2)
    axis.margins(x=0.02)
    axis.set_title(title, loc="left", fontsize=10.5)
    axis.set_xlabel("optimiser steps", fontsize=8.5)
    opened(axis, colours)
