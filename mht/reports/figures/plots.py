"""The benchmark's figures as PNG bytes: metrics by variant, reward against KL, training curves.

Bytes depend only on the data and matplotlib's version. Colours are Okabe and Ito's, which stay
apart for colour-blind readers; every mark is labelled where it stands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mht.evaluation.metrics import describe
from mht.reports.figures import front
from mht.reports.figures.canvas import SMOOTH, arms, heading, opened, png, running_mean
from mht.reports.figures.palette import Palette, palette
from mht.reports.learning.curves import Band, Curves, band_of
from mht.reports.records import Comparison
from mht.reports.wording import number

RESAMPLES = 500  # of the bands
PANELS = {  # column -> title; those that some file has are drawn
    "ppo/score/mean": "Reward",
    "ppo/kl/k1_nats": "KL to the reference (nats)",
    "ppo/response/length_tokens": "Response length (tokens)",
    "ppo/policy/entropy_nats": "Entropy (nats per token)",
    "sft/loss": "SFT loss",
    "validation/sft_loss": "Validation SFT loss",
    "validation/score": "Reward, validation",
}


def figures(comparison: Comparison, *, dark: bool = False) -> dict[str, bytes]:
    """Name to PNG: ``metrics``, ``frontier`` where it can be drawn, ``training`` with curves."""
    colours = palette(comparison.names, dark=dark)
    summaries = {v.name: v.summary for v in comparison.variants}
    title = f"What each variant scores on {comparison.asked}"
    drawn = {"metrics": metric_bars(summaries, comparison.metrics, title, colours)}
    curves = shown_bands(comparison.curves)
    reward = front.reward_of(list(summaries.values()))
    if reward:
        points = {v.name: (v.summary["kl_nats"], v.summary[reward]) for v in comparison.variants}
        label = describe(reward).label
        ways = front.paths(curves)
        drawn["frontier"] = front.figure(points, ways, label, colours, comparison.split)
    if any(curves.values()):
        several = len(comparison.seeds) > 1
        drawn["training"] = training(curves, _with_sft(comparison, colours), several=several)
    return drawn


def shown_bands(curves: Curves) -> dict[str, dict[str, Band]]:
    """Variant to column to its band over seeds, of the columns that figures show."""
    return {
        variant: {
            column: band_of(
                [dict(zip(*own[column], strict=True)) for own in seeds],
                resamples=RESAMPLES,
                seed=0,
            )
            for column in PANELS
            if all(column in own for own in seeds)
        }
        for variant, seeds in curves.items()
    }


def _with_sft(comparison: Comparison, colours: Palette) -> Palette:
    """The SFT stage has the colour of the first variant that goes on from it."""
    first = next((v.name for v in comparison.variants if v.entry.start == "sft"), None)
    mark = colours.marks[first] if first else colours.faint
    return replace(colours, marks={"sft": mark, **colours.marks})


def metric_bars(
    summaries: Mapping[str, Any], metrics: Sequence[str], title: str, colours: Palette
) -> bytes:
    """A panel per chosen metric: a bar per variant, its 95% interval and its mean.

    Args:
        summaries: variant to metric to mean, low and high.
        metrics: to draw.
        title: of the figure.
        colours: of variants, paper and ink.
    """
    count = len(metrics)
    width = min(3, count)
    rows = math.ceil(count / width)
    height = max(1.0, 0.25 * len(summaries)) * 1.85

    def draw(figure: Any) -> None:
        axes = figure.subplots(rows, width, squeeze=False).flat
        for i, axis in enumerate(axes):
            if i < count:
                _bars(axis, summaries, metrics[i], colours, names=i % width == 0)
            else:
                axis.set_visible(False)
        heading(figure, title, "bar and number: mean; line: 95% interval", colours)

    return png(draw, (3.5 * width + 0.6, height * rows + 0.6), colours)


def training(
    curves: Mapping[str, Mapping[str, Band]], colours: Palette, *, several: bool = False
) -> bytes:
    """A panel per known column that some curve has.

    Args:
        curves: variant to column to its band.
        colours: of variants, paper and ink.
        several: whether the bands are of several seeds; else the curve itself is drawn faintly.
    """
    shown = [c for c in PANELS if any(c in columns for columns in curves.values())]
    width = min(3, len(shown))
    rows = math.ceil(len(shown) / width)

    def draw(figure: Any) -> None:
        axes = list(figure.subplots(rows, width, squeeze=False).flat)
        for axis in axes[len(shown) :]:
            axis.set_visible(False)
        for axis, column in zip(axes, shown, strict=False):
            of = {name: own[column] for name, own in curves.items() if column in own}
            _curve_panel(axis, column, of, colours, several=several)
        note = f"faint: as logged; strong: mean of the last {SMOOTH}"
        if several:
            note = "line: interquartile mean over seeds; band: its 95% interval"
        heading(figure, "How training went", note, colours)

    return png(draw, (3.9 * width + 0.3, 2.4 * rows + 0.6), colours)


def _end(value: Mapping[str, float], key: str) -> float:
    """An end of the interval, or the mean where there is none."""
    return value["mean"] if math.isnan(value[key]) else value[key]


def _bars(
    axis: Any,
    summaries: Mapping[str, Any],
    metric: str,
    colours: Palette,
    *,
    names: bool,
) -> None:
    shown = [own[metric] for own in summaries.values() if metric in own]
    highest = max(_end(value, "high") for value in shown)
    lowest = min(_end(value, "low") for value in shown)
    edge, gap = max(highest, 0.0), max(highest, 0.0) - min(lowest, 0.0) or 1.0
    for row, (name, own) in enumerate(summaries.items()):
        if metric not in own:
            continue
        value = own[metric]
        axis.barh(row, value["mean"], height=0.66, color=colours.marks[name], alpha=0.9)
        axis.errorbar(value["mean"], row, xerr=arms(value), color=colours.ink, elinewidth=1.2)
        where = max(_end(value, "high"), 0.0) + 0.03 * gap
        axis.text(where, row, number(value["mean"]), va="center", color=colours.ink, fontsize=9)
    axis.set_xlim(min(lowest, 0.0) - 0.02 * gap, edge + 0.22 * gap)
    axis.set_ylim(len(summaries) - 0.4, -0.6)
    axis.set_yticks(range(len(summaries)))
    axis.set_yticklabels([name if names else "" for name in summaries])
    better = {"higher": "higher is better", "lower": "lower is better", "neither": ""}
    axis.set_title(describe(metric).label, loc="left", fontsize=10.5)
    axis.set_title(better[describe(metric).direction], loc="right", fontsize=8,
                   color=colours.faint)  # fmt: skip
    axis.tick_params(axis="y", length=0)
    axis.set_xticks([])
    for side in ("top", "right", "bottom", "left"):
        axis.spines[side].set_visible(False)
    axis.axvline(0, color=colours.faint, linewidth=0.8)


def _curve_panel(
    axis: Any, column: str, curves: Mapping[str, Band], colours: Palette, *, several: bool
) -> None:
    ends = {}
    for variant, (steps, middle, low, high) in curves.items():
        colour, mean = colours.marks[variant], middle.tolist()
        if several:
            axis.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        else:
            mean = running_mean(mean)
            axis.plot(steps, middle, color=colour, alpha=0.3, linewidth=1)
        axis.plot(steps, mean, color=colour, linewidth=2)
        ends[variant] = mean[-1]
    low, high = axis.get_ylim()
    heights = _apart([(end - low) / (high - low) for end in ends.values()], 0.085)
    for variant, height in zip(ends, heights, strict=True):
        axis.annotate(
            variant, (1, height), (3, 0), xycoords="axes fraction", textcoords="offset points",
            va="center", color=colours.marks[variant], fontsize=8.5, fontweight="bold",
        )  # fmt: skip
    axis.margins(x=0.02)
    axis.set_title(PANELS[column], loc="left", fontsize=10.5)
    axis.set_xlabel("step", fontsize=8.5)
    opened(axis, colours)


def _apart(heights: list[float], gap: float) -> list[float]:
    """The heights, moved up where they are closer than ``gap`` to the one below."""
    moved, last = list(heights), -math.inf
    for i in sorted(range(len(heights)), key=heights.__getitem__):
        last = moved[i] = max(heights[i], last + gap)
    return moved
