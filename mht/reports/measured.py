"""Variants' values as arrays over seeds and prompts, and differences between two variants.

One training seed is the case S = 1: its intervals are over prompts alone. With several they are
over seeds and prompts. Values are (k, S, P) as in `mht.evaluation.over_seeds`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mht.evaluation.over_seeds import resampled, seeds_difference, seeds_interval, stacked
from mht.evaluation.statistics import STATISTICS, TOO_FEW, Difference, Floats, Interval
from mht.evaluation.summary import Evaluated, or_nan


class Measured(NamedTuple):
    """One metric of those variants that have it.

    Attributes:
        of: variant to values (k, S, P), without the units that lack a value somewhere.
        statistic: a name in `STATISTICS`, which makes a number of k columns.
        known: variant to the value that the tables show.
    """

    of: dict[str, Floats]
    statistic: str
    known: dict[str, Interval]


def measure(
    runs: Mapping[str, Sequence[Evaluated]],
    known: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
) -> dict[str, Measured]:
    """Every metric that some variant has in all its seeds.

    Args:
        runs: variant to what was evaluated of it, a seed each, all on the same prompts.
        known: variant to metric to mean, low and high, as the tables show them.
    """
    made: dict[str, dict[str, Floats]] = {}
    statistics: dict[str, str] = {}
    for name, own in runs.items():
        for metric, (values, statistics[metric]) in stacked(own).items():
            made.setdefault(metric, {})[name] = values
    complete = {metric: _complete(of) for metric, of in sorted(made.items())}
    return {
        metric: Measured(of, statistics[metric], _known(metric, known or {}))
        for metric, of in complete.items()
        if of
    }


def level(measured: Measured, name: str, *, resamples: int, seed: int) -> Interval:
    """A variant's value with its interval: the known one, or one over seeds and prompts."""
    if name in measured.known:
        return measured.known[name]
    return seeds_interval(
        measured.of[name], statistic=measured.statistic, resamples=resamples, seed=seed
    )


def difference(measured: Measured, a: str, b: str, *, resamples: int, seed: int) -> Difference:
    """How much ``a`` exceeds ``b``: interval and two-sided p over seeds and prompts.

    With one seed both are over prompts alone, and say nothing of another seed.
    """
    found = seeds_difference(
        measured.of[a],
        measured.of[b],
        statistic=measured.statistic,
        resamples=resamples,
        seed=seed,
    )
    return Difference(*found[:4])


def relative_change(
    measured: Measured, a: str, b: str, *, resamples: int, seed: int
) -> Interval | None:
    """``a / b - 1`` with its 95% percentile interval, paired by seed and prompt.

    None where b is not above 0, also in some draw; of a single value the interval is NaN.
    """
    left, right = measured.of[a], measured.of[b]
    values = [_over_seeds(x, measured.statistic) for x in (left, right)]
    drawn = [resampled(x, measured.statistic, resamples, seed).mean(axis=0) for x in (left, right)]
    if values[1] <= 0 or (drawn[1] <= 0).any():
        return None
    low, high = np.quantile(drawn[0] / drawn[1] - 1, [0.025, 0.975])
    if left.shape[1:] == (1, 1):
        low, high = TOO_FEW
    return Interval(values[0] / values[1] - 1, float(low), float(high))


def _over_seeds(values: Floats, statistic: str) -> float:
    return float(np.mean(STATISTICS[statistic](*values)))


def _known(
    metric: str, known: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> dict[str, Interval]:
    return {
        name: Interval(*map(or_nan, (own[metric][key] for key in Interval._fields)))
        for name, own in known.items()
        if metric in own
    }


def _complete(of: Mapping[str, Floats]) -> dict[str, Floats]:
    missing = [np.isnan(values).any(axis=(0, 1)) for values in of.values()]
    kept = ~np.any(missing, axis=0)
    return {name: values[:, :, kept] for name, values in of.items()} if kept.any() else {}
