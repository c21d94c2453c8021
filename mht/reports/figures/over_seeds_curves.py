"""Learning curves over seeds with their bands, and the front of reward against KL: CSV and PNG."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mht.evaluation.over_seeds import interquartile_mean
from mht.evaluation.statistics import Floats
from mht.reports.figures.canvas import png
from mht.reports.figures.palette import LIGHT
from mht.reports.learning.reach import Curve

STEP = "optimizer_steps"
COSTS = (STEP, "sampled_tokens", "seconds", "cpu_seconds")
LABELS = {
    "score": "Reward on validation prompts",
    "kl_nats": "KL to where the stage began (nats)",
    "length_tokens": "Response length (tokens)",
    "sft_loss": "SFT loss on validation targets (nats per token)",
}
COLOURS = (  # Okabe and Ito's, which stay apart for colour-blind readers
    "#009e73", "#0072b2", "#e69f00", "#cc79a7", "#d55e00", "#56b4e9", "#8b93a1", "#b8a000",
)  # fmt: skip
DASHES = ("-", "--", ":")  # the second and third round of the colours
MARKS = {"-": "o", "--": "s", ":": "^"}


class Band(NamedTuple):
    """One variant's curve of one metric over its seeds.

    Attributes:
        steps: (T,) optimiser steps.
        middle: (T,) interquartile mean over seeds.
        low: (T,) of its 95% interval over seeds.
        high: (T,) of the same.
    """

    steps: Floats
    middle: Floats
    low: Floats
    high: Floats


Bands = dict[str, dict[str, Band]]  # metric -> variant -> its band


def band(values: Floats, *, resamples: int = 2000, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """The interquartile mean over seeds at each step, and its percentile interval over seeds.

    Args:
        values: (S, T).
        resamples: how often the seeds are drawn; whole curves are.
        seed: of the draws.

    Returns:
        (T,) each: middle, low, high.
    """
    drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    spread = interquartile_mean(values[drawn], axis=1)  # (resamples, T)
    low, high = np.quantile(spread, [0.025, 0.975], axis=0)
    return interquartile_mean(values, axis=0), low, high


def bands(curves: Mapping[str, Sequence[Curve]], *, resamples: int = 2000, seed: int = 0) -> Bands:
    """Every metric's band of every variant that has it.

    Args:
        curves: variant to a curve for each seed. Of two looks at one step the later counts; seeds
            that looked at different steps are interpolated to all of them, as far as all went.
        resamples: of the intervals.
        seed: of the same.
    """
    found: Bands = {}
    for variant, of_seeds in curves.items():
        metrics = sorted({key for curve in of_seeds for row in curve for key in row} - {*COSTS})
        for metric in metrics:
            rows = [{r[STEP]: r[metric] for r in curve if metric in r} for curve in of_seeds]
            if not all(rows):
                continue
            last = min(max(row) for row in rows)
            steps = np.asarray(sorted({x for row in rows for x in row if x <= last}), float)
            values = np.stack([np.interp(steps, *_sorted(row)) for row in rows])
            own = band(values, resamples=resamples, seed=seed)
            found.setdefault(metric, {})[variant] = Band(steps, *own)
    return found


def _sorted(row: Mapping[float, float]) -> tuple[list[float], list[float]]:
    steps = sorted(row)
    return steps, [row[step] for step in steps]


def as_csv(found: Bands) -> str:
    """A line for each metric, variant and step."""
    file = io.StringIO()
    write = csv.writer(file, lineterminator="\n").writerow
    write(["metric", "variant", STEP, "iqm", "low", "high"])
    for metric, of in found.items():
        for variant, one in of.items():
            for step, *figures in zip(*one, strict=True):
                write([metric, variant, int(step), *(f"{value:.6g}" for value in figures)])
    return file.getvalue()


def curves_png(found: Bands, reach: float | None = None) -> bytes:
    """A panel for each metric: interquartile means over seeds with their 95% bands.

    Args:
        found: the bands.
        reach: a score to mark in the panel of the reward; None marks none.
    """
    shown = [metric for metric in LABELS if metric in found] or sorted(found)
    styles = _styles([variant for of in found.values() for variant in of])

    def draw(figure: Any) -> None:
        for axis, metric in zip(figure.subplots(1, len(shown), squeeze=False).flat, shown,
                                strict=True):  # fmt: skip
            for variant, one in found[metric].items():
                colour, dash = styles[variant]
                axis.plot(one.steps, one.middle, color=colour, linestyle=dash, label=variant)
                axis.fill_between(one.steps, one.low, one.high, color=colour, alpha=0.15, lw=0)
            if metric == "score" and reach is not None:
                axis.axhline(reach, color="#8b93a1", linewidth=0.8)
            axis.set_title(LABELS.get(metric, metric), loc="left", fontsize=9.5)
            axis.set_xlabel("optimiser steps")
            _open(axis)
        _legend(figure, 6)

    return png(draw, (4.2 * len(shown), 3.6 + 0.2 * (len(styles) // 6)), LIGHT)


def front_png(points: Mapping[str, Mapping[str, Mapping[str, float]]]) -> bytes:
    """Reward against KL to the base model, on test prompts: what a nat of drift bought.

    Args:
        points: variant to ``kl_nats`` and ``reward``, each with mean, low and high.
    """
    styles = _styles(list(points))

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for variant, at in points.items():
            colour, dash = styles[variant]
            x, y = at["kl_nats"], at["reward"]
            axis.errorbar(
                x["mean"], y["mean"], xerr=_arms(x), yerr=_arms(y), fmt=MARKS[dash], color=colour,
                elinewidth=1.2, label=variant,
            )  # fmt: skip
        axis.set_xlabel("KL to the base model (nats per response)")
        axis.set_ylabel("reward")
        axis.set_title("95% intervals; up and to the left is better", loc="left", fontsize=8.5)
        _open(axis)
        _legend(figure, 4)

    return png(draw, (6.4, 4.2 + 0.2 * (len(styles) // 4)), LIGHT)


def _styles(variants: Sequence[str]) -> dict[str, tuple[str, str]]:
    names = [name for name in dict.fromkeys(variants) if name != "base"]
    size = len(COLOURS)
    styles = {n: (COLOURS[i % size], DASHES[i // size % len(DASHES)]) for i, n in enumerate(names)}
    return {"base": ("#000000", ":"), **styles}


def _arms(value: Mapping[str, float]) -> list[list[float]]:
    below, above = value["mean"] - value["low"], value["high"] - value["mean"]
    return [[max(0.0, below)], [max(0.0, above)]]


def _open(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#e3e6eb", linewidth=0.8)
    axis.set_axisbelow(True)


def _legend(figure: Any, columns: int) -> None:
    labelled: dict[str, Any] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            labelled.setdefault(label, handle)
    figure.legend(
        labelled.values(), labelled, loc="outside lower center", ncols=columns, frameon=False
    )
