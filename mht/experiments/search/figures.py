"""The pictures of a search, as PNG bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mht.config import TuneConfig
from mht.experiments.search.study import best
from mht.reports.figures.canvas import png
from mht.reports.figures.palette import LIGHT, MARKS

if TYPE_CHECKING:
    import optuna

LINE, BEST, FAINT = MARKS[1][0], MARKS[3][0], LIGHT.faint


def draw_all(
    study: optuna.Study, tune: TuneConfig, importances: Mapping[str, float]
) -> dict[str, bytes]:
    """Name to PNG, of those pictures for which there is something to draw."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    done = [t for t in trials if t.state.name == "COMPLETE"]
    drawn = {}
    if done:
        drawn["history"] = _history(trials, done, tune)
        drawn["parallel"] = _parallel(done, tune)
    if any(t.intermediate_values for t in trials):
        drawn["curves"] = _curves(trials, best(study))
    if importances:
        drawn["importances"] = _importances(importances)
    return drawn


def _history(trials: list[Any], done: list[Any], tune: TuneConfig) -> bytes:
    def draw(figure: Any) -> None:
        axis = figure.subplots()
        pruned = [t for t in trials if t.state.name == "PRUNED" and t.value is not None]
        axis.plot([t.number for t in done], [t.value for t in done], "o", color=LINE, label="trial")
        if pruned:
            numbers = [t.number for t in pruned]
            axis.plot(numbers, [t.value for t in pruned], "x", color=FAINT, label="pruned")
        pick = max if tune.direction == "maximize" else min
        so_far = list(itertools.accumulate((t.value for t in done), pick))
        numbers = [t.number for t in done]
        axis.step(numbers, so_far, where="post", color=BEST, label="best so far")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_xlabel("trial")
        axis.set_ylabel("objective")
        axis.legend(frameon=False)

    return png(draw, (7, 3.6), LIGHT)


def _curves(trials: list[Any], top: Any) -> bytes:
    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for t in trials:
            points = sorted(t.intermediate_values.items())
            is_best = top is not None and t.number == top.number
            colour = BEST if is_best else LINE if t.state.name == "COMPLETE" else FAINT
            axis.plot(
                [x for x, _ in points], [y for _, y in points], marker=".", color=colour,
                alpha=1.0 if is_best else 0.5, linewidth=2.2 if is_best else 1, zorder=2 + is_best,
            )  # fmt: skip
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_xlabel("cycle (green: the best trial; grey: pruned or failed)")
        axis.set_ylabel("objective")

    return png(draw, (7, 3.6), LIGHT)


def _importances(shares: Mapping[str, float]) -> bytes:
    def draw(figure: Any) -> None:
        axis = figure.subplots()
        rows = list(shares.items())[::-1]
        axis.barh([k for k, _ in rows], [v for _, v in rows], color=LINE)
        for y, (_, share) in enumerate(rows):
            axis.text(share, y, f" {share:.0%}", va="center")
        axis.set_xlim(0, max(shares.values()) * 1.15 or 1)

    return png(draw, (7, 0.45 * len(shares) + 0.8), LIGHT)


def _parallel(done: list[Any], tune: TuneConfig) -> bytes:
    """An axis per setting and one for the objective, each from its least value to its greatest."""
    paths = list(tune.space)
    places = {path: _places([t.params[path] for t in done], tune, path) for path in paths}
    order = sorted(range(len(done)), key=lambda i: done[i].value)
    if tune.direction == "minimize":
        order.reverse()
    values = [t.value for t in done]
    low, spread = min(values), (max(values) - min(values)) or 1.0

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for rank, i in enumerate(order):
            heights = [places[path][i] for path in paths] + [(values[i] - low) / spread]
            is_best = rank == len(order) - 1
            axis.plot(
                heights, color=BEST if is_best else LINE, linewidth=2.2 if is_best else 1,
                alpha=1.0 if is_best else 0.1 + 0.6 * rank / len(order),
            )  # fmt: skip
        axis.set_xticks(range(len(paths) + 1))
        names = [path.replace(".", ".\n", path.count(".") - 1) for path in paths]
        axis.set_xticklabels([*names, "objective"])
        for x, path in enumerate(paths):
            axis.axvline(x, color=FAINT, linewidth=0.6)
            ends = _ends(tune, path)
            _label(axis, x, *ends)
        _label(axis, len(paths), f"{low:.4g}", f"{low + spread:.4g}")
        axis.set_yticks([])
        axis.set_ylim(-0.12, 1.12)

    return png(draw, (1.5 * len(paths) + 2.5, 4), LIGHT)


def _label(axis: Any, x: int, low: str, high: str) -> None:
    """Say what the ends of an axis stand for."""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for y, text, va in ((-0.04, low, "top"), (1.04, high, "bottom")):
        axis.text(x, y, text, ha="center", va=va, fontsize=8, bbox=box)


def _places(values: list[Any], tune: TuneConfig, path: str) -> list[float]:
    """Heights in [0, 1] on the setting's own scale."""
    import math

    searched = tune.space[path]
    if searched.choices is not None:
        top = max(len(searched.choices) - 1, 1)
        return [searched.choices.index(value) / top for value in values]
    scale: Callable[[float], float] = math.log if searched.log else float
    low, high = (scale(float(end)) for end in (searched.low or 0, searched.high or 0))
    return [(scale(float(value)) - low) / (high - low) for value in values]


def _ends(tune: TuneConfig, path: str) -> tuple[str, str]:
    searched = tune.space[path]
    if searched.choices is not None:
        return str(searched.choices[0]), str(searched.choices[-1])
    return f"{searched.low:g}", f"{searched.high:g}"
