"""Finished DVC experiments side by side, with intervals.

Over several training seeds everything is paired by seed and prompt; with one seed each, by prompt:
then the intervals say nothing of the training seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mht.core.component import did_you_mean
from mht.core.errors import ConfigError, DataError
from mht.evaluation.metrics import describe
from mht.evaluation.over_seeds import seeds_difference, seeds_interval
from mht.evaluation.statistics import UNCLEAR, holm, verdict
from mht.evaluation.summary import Evaluated, significant
from mht.experiments.revisions import State, changed
from mht.reports.compare import draws_for
from mht.reports.measured import Measured, measure

Changes = Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Gathered:
    """What is compared.

    Attributes:
        runs: name to an evaluation for each training seed, all of the same prompts.
        seeds: how many training seeds each has.
        baseline: what the others are compared with.
        changes: name to the settings that differ from the baseline's, and to both values.
    """

    runs: Mapping[str, Sequence[Evaluated]]
    seeds: int
    baseline: str
    changes: Mapping[str, Changes] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """One experiment's value of one metric, and how it differs from the baseline's.

    Attributes:
        metric: its name.
        name: of the experiment.
        mean: over seeds and prompts.
        low: of its 95% interval.
        high: of the same.
        difference: to the baseline's; None for the baseline itself, as what follows.
        difference_low: of its 95% interval.
        difference_high: of the same.
        p_adjusted: of the permutation test, for all lines of the table (Holm).
        verdict: better, worse, differs or unclear.
    """

    metric: str
    name: str
    mean: float
    low: float
    high: float
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_adjusted: float | None = None
    verdict: str = "baseline"


@dataclass(frozen=True)
class Table:
    """All lines, metric by metric.

    Attributes:
        lines: the baseline's first in each metric.
        baseline: its name.
        seeds: training seeds of each experiment.
        prompts: of each seed.
        changes: name to the settings that differ from the baseline's, and to both values.
    """

    lines: Sequence[Line]
    baseline: str
    seeds: int
    prompts: int
    changes: Mapping[str, Changes] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """The metrics, in order."""
        return list(dict.fromkeys(line.metric for line in self.lines))


def gather(baseline: State, others: Sequence[State]) -> Gathered:
    """Read the results of a variant, for the training seeds that all states have.

    Raises:
        DataError: a result is not there, or they can't be compared.
    """
    found = {state.name: state.results() for state in (baseline, *others)}
    seeds = sorted(set.intersection(*(set(own) for own in found.values())))
    if not seeds:
        raise DataError("the experiments have no training seed in common: set the same base.seed")
    runs = {name: [own[seed] for seed in seeds] for name, own in found.items()}
    if len({tuple(run.ids) for own in runs.values() for run in own}) > 1:
        raise DataError("the experiments were evaluated on different prompts; they can't be paired")
    changes = {state.name: changed(state, baseline) for state in others}
    return Gathered(runs, len(seeds), baseline.name, changes)


def tabulate(
    found: Gathered,
    *,
    metrics: Sequence[str],
    resamples: int = 2000,
    seed: int = 0,
) -> Table:
    """Every experiment against the baseline in every metric.

    Raises:
        ConfigError: no such metric.
    """
    against = found.baseline
    options = {"resamples": resamples, "seed": seed}
    measured = measure(found.runs)
    draws = draws_for(len(metrics) * (len(found.runs) - 1), resamples)
    lines: list[Line] = []
    for metric in metrics:
        values = _values(measured, metric, found.runs)
        names = [against, *(name for name in found.runs if name != against)]
        lines += [_line(metric, name, against, values, options, draws) for name in names]
    adjusted = iter(holm([line.p_adjusted for line in lines if line.p_adjusted is not None]))
    lines = [line if line.p_adjusted is None else _judged(line, next(adjusted)) for line in lines]
    prompts = found.runs[against][0].prompts
    return Table(lines, against, found.seeds, prompts, found.changes)


def _values(
    measured: Mapping[str, Measured], metric: str, runs: Mapping[str, Sequence[Evaluated]]
) -> Measured:
    known = sorted(name for name, own in measured.items() if own.of.keys() == runs.keys())
    if metric not in known:
        close = did_you_mean(metric, known)
        problem = f"no such metric {metric!r}{close}. Available: {', '.join(known)}"
        raise ConfigError([f"benchmark.metrics: {problem}"], "params.yaml")
    return measured[metric]


def _line(
    metric: str,
    name: str,
    against: str,
    values: Measured,
    options: Mapping[str, Any],
    draws: int,
) -> Line:
    """Before the correction: ``p_adjusted`` is p itself."""
    options = {"statistic": values.statistic, **options}
    data = values.of[name]
    own = seeds_interval(data, **options)
    if name == against:
        return Line(metric, name, *_rounded(own))
    other = values.of[against]
    options["resamples"] = draws
    found = seeds_difference(data, other, **options)
    shown = _rounded((found.difference, found.low, found.high))
    return Line(metric, name, *_rounded(own), *shown, found.p, UNCLEAR)


def _rounded(values: Iterable[float]) -> tuple[float, float, float]:
    first, second, third = map(significant, values)
    return first, second, third


def _judged(line: Line, p: float) -> Line:
    word = verdict(describe(line.metric).direction, line.difference or 0.0, p)
    return Line(**{**asdict(line), "p_adjusted": significant(p), "verdict": word})
