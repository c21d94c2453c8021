"""Training curves as the training stages log them, and what they say of cost and reward.

A file ``plots/<variant>/<phase>.csv`` has a row for each step of that phase; those of further
training seeds are below, in ``plots/<variant>/seeds/<seed>``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mht.core.errors import DataError
from mht.core.seeds import place
from mht.evaluation.over_seeds import interquartile_mean
from mht.evaluation.statistics import Floats
from mht.reports.learning.reach import Curve

Columns = dict[str, tuple[list[float], list[float]]]  # name of a column -> steps, values
Curves = dict[str, list[Columns]]  # variant -> its columns, for each seed
STEPS, TOKENS = "optimizer_steps", "sampled_tokens"
COSTS = (STEPS, TOKENS)
TIMES = ("seconds", "cpu_seconds")  # where they were measured
LOOK = "validation/"  # columns of the looks at validation prompts begin so


class Band(NamedTuple):
    """One variant's curve of one metric over its seeds.

    Attributes:
        steps: (T,) steps.
        middle: (T,) interquartile mean over seeds.
        low: (T,) of its 95% interval over seeds; that of one seed is the curve itself.
        high: (T,) of the same.
    """

    steps: Floats
    middle: Floats
    low: Floats
    high: Floats


Bands = dict[str, dict[str, Band]]  # metric -> variant -> its band


def read_curves(root: str | Path, names: Iterable[str], seeds: Sequence[int]) -> Curves:
    """The training curves of those variants that have some.

    Raises:
        DataError: a variant has a curve of the first seed and none of another.
    """
    curves: Curves = {}
    for name in names:
        folders = [place(Path(root, "plots", name), seeds, seed) for seed in seeds]
        found = [_read_columns(folder) for folder in folders]
        if not found[0]:
            continue
        for folder, columns in zip(folders, found, strict=True):
            if not columns:
                raise DataError(f"{folder}: no training curve; run `dvc repro` again")
        curves[name] = found
    return curves


def _read_columns(folder: Path) -> Columns:
    columns: Columns = {}
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            columns.update(_columns(list(csv.DictReader(file))))
    return columns


def _columns(rows: list[dict[str, str]]) -> Columns:
    """Every column but the step; an empty cell is a step without that number."""
    found = {}
    for name in rows[0] if rows else ():
        points = [(float(row["step"]), float(row[name])) for row in rows if row[name]]
        if name != "step" and points:
            found[name] = ([step for step, _ in points], [value for _, value in points])
    return found


def looks(trainings: Sequence[tuple[Columns, int]]) -> Curve:
    """A row for each look at the validation prompts, with what was spent until then.

    Args:
        trainings: the columns of each training behind the weights, in order, and the responses
            that one of its PPO steps samples.
    """
    rows, spent = [], dict.fromkeys(COSTS, 0.0)
    for columns, batch_size in trainings:
        costs = _costs(columns, batch_size)
        shown = {name: own for name, own in columns.items() if name.startswith(LOOK)}
        for step in sorted({step for steps, _ in shown.values() for step in steps}):
            row = {key: value + _until(costs[key], step) for key, value in spent.items()}
            row |= {
                name.removeprefix(LOOK): values[steps.index(step)]
                for name, (steps, values) in shown.items()
                if step in steps
            }
            rows.append(row)
        spent = {key: value + sum(costs[key].values()) for key, value in spent.items()}
    return rows


def total(trainings: Sequence[tuple[Columns, int]]) -> dict[str, float]:
    """Optimiser steps and sampled tokens of all those trainings."""
    costs = [_costs(*training) for training in trainings]
    return {key: sum(sum(own[key].values()) for own in costs) for key in COSTS}


def _costs(columns: Columns, batch_size: int) -> dict[str, dict[float, float]]:
    """Cost to step to what that step spent: an SFT step is one optimiser step."""
    steps = dict.fromkeys(columns.get("sft/loss", ([], []))[0], 1.0)
    steps |= dict(zip(*columns.get("ppo/optim/steps", ([], [])), strict=True))
    lengths = zip(*columns.get("ppo/response/length_tokens", ([], [])), strict=True)
    return {STEPS: steps, TOKENS: {step: round(own * batch_size) for step, own in lengths}}


def _until(cost: Mapping[float, float], step: float) -> float:
    return sum(value for at, value in cost.items() if at <= step)


def band(values: Floats, *, resamples: int = 2000, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """The interquartile mean over seeds at each step, and its percentile interval over seeds.

    Args:
        values: (S, T).
        resamples: how often the seeds are drawn; whole curves are.
        seed: of the draws.

    Returns:
        (T,) each: middle, low, high; those of one seed are the curve itself.
    """
    if len(values) == 1:
        return values[0], values[0], values[0]
    drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    spread = interquartile_mean(values[drawn], axis=1)  # (resamples, T)
    low, high = np.quantile(spread, [0.025, 0.975], axis=0)
    return interquartile_mean(values, axis=0), low, high


def bands(curves: Mapping[str, Sequence[Curve]], *, resamples: int = 2000, seed: int = 0) -> Bands:
    """Every metric's band of every variant that has it, against the optimiser steps.

    Args:
        curves: variant to a curve for each seed. Of two looks at one step the later counts. Seeds
            that looked at different steps are interpolated to all these steps, up to the last step
            that all seeds have.
        resamples: of the intervals.
        seed: of the same.
    """
    found: Bands = {}
    for variant, of_seeds in curves.items():
        metrics = sorted(
            {key for curve in of_seeds for row in curve for key in row} - {*COSTS, *TIMES}
        )
        for metric in metrics:
            rows = [{r[STEPS]: r[metric] for r in curve if metric in r} for curve in of_seeds]
            if all(rows):
                own = band_of(rows, resamples=resamples, seed=seed)
                found.setdefault(metric, {})[variant] = own
    return found


def band_of(rows: Sequence[Mapping[float, float]], *, resamples: int, seed: int) -> Band:
    """The band of one curve over seeds, each given as step to value."""
    last = min(max(row) for row in rows)
    steps = np.asarray(sorted({x for row in rows for x in row if x <= last}), float)
    values = np.stack(
        [np.interp(steps, sorted(row), [row[x] for x in sorted(row)]) for row in rows]
    )
    return Band(steps, *band(values, resamples=resamples, seed=seed))


def as_csv(found: Bands) -> str:
    """A line for each metric, variant and step."""
    file = io.StringIO()
    write = csv.writer(file, lineterminator="\n").writerow
    write(["metric", "variant", STEPS, "iqm", "low", "high"])
    for metric, of in found.items():
        for variant, one in of.items():
            for step, *figures in zip(*one, strict=True):
                write([metric, variant, int(step), *(f"{value:.6g}" for value in figures)])
    return file.getvalue()
