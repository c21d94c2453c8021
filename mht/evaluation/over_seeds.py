"""Variants over several training seeds: intervals, paired tests, effect sizes.

The values of a metric are an array (k, S, P). Its statistic takes k columns: one for ``mean``, nats
and token counts for ``perplexity``. There are S training seeds and P units, which are the same in
every seed: prompts, or groups of them. A metric's value is the statistic over units within each
seed, averaged over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mht.evaluation.statistics import (
    STATISTICS,
    Floats,
    Interval,
    difference_of,
    interval_of,
)
from mht.evaluation.summary import Evaluated, significant

QUARTER = 0.25


class SeedDifference(NamedTuple):
    """``a`` minus ``b`` over seeds.

    Attributes:
        difference: of the metric's values.
        low: of the 95% interval over seeds and units.
        high: of the same.
        p: two-sided, of another seed and other units both; see `crossed_p`. With one seed, of
            other units.
        cohens_d: see `cohens_d`; None where it is not defined.
        cliffs_delta: see `cliffs_delta`.
    """

    difference: float
    low: float
    high: float
    p: float
    cohens_d: float | None
    cliffs_delta: float


def stacked(runs: Sequence[Evaluated]) -> dict[str, tuple[Floats, str]]:
    """Every metric that all seeds have: its values (k, S, P) and the name of its statistic."""
    found = [run.units() for run in runs]
    common = sorted(set.intersection(*(set(one) for one in found)))
    return {
        metric: (
            np.stack([np.asarray(one[metric].columns, float) for one in found], axis=1),
            found[0][metric].statistic,
        )
        for metric in common
    }


def summarise_seeds(
    runs: Sequence[Evaluated], *, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Every metric's mean over seeds and prompts with its 95% interval over both.

    Args:
        runs: what was evaluated with each seed, all on the same prompts.
        resamples: of the bootstrap.
        seed: of the same.

    Returns:
        ``{metric: {"mean", "low", "high"}}``, 6 significant digits.
    """
    summary = {}
    for metric, (values, statistic) in stacked(runs).items():
        known = values[:, :, ~np.isnan(values).any(axis=(0, 1))]
        if known.size:
            own = seeds_interval(known, statistic=statistic, resamples=resamples, seed=seed)
            summary[metric] = {key: significant(value) for key, value in own._asdict().items()}
    return summary


def per_seed(values: ArrayLike, statistic: str = "mean") -> Floats:
    """The statistic of each seed (S,) from values (k, S, P).

    >>> per_seed([[[0.0, 1.0], [1.0, 1.0]]]).tolist()
    [0.5, 1.0]
    """
    found: Floats = STATISTICS[statistic](*_values(values))
    return found


def interquartile_mean(values: ArrayLike, axis: int = -1) -> Any:
    """The mean of the middle half: a quarter of the values, rounded down, is left out at each end.

    As unmoved by single seeds as a median, and less noisy (Agarwal et al. 2021, arXiv:2108.13264).

    >>> float(interquartile_mean([0.0, 0.5, 0.75, 100.0]))
    0.625
    """
    ordered = np.sort(np.asarray(values, float), axis=axis)
    count = ordered.shape[axis]
    out = int(QUARTER * count)
    return np.take(ordered, range(out, count - out), axis=axis).mean(axis=axis)


AVERAGES: dict[str, Callable[..., Any]] = {"mean": np.mean, "iqm": interquartile_mean}
FROM_SUMS: dict[str, Callable[[Floats, int], Floats]] = {  # `STATISTICS`, from sums over units
    "mean": lambda sums, units: sums[0] / units,
    "perplexity": lambda sums, units: np.exp(sums[0] / sums[1]),
}


def seeds_interval(
    values: ArrayLike,
    *,
    statistic: str = "mean",
    average: str = "mean",
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """A metric's value over seeds, and its percentile interval over seeds and units.

    Seeds and units are drawn with replacement, each by itself, since all seeds share their units
    (Owen 2007, doi:10.1214/07-AOAS122). Few seeds make any bootstrap interval too narrow: with ten
    of them it is about four fifths as wide as one by Student's t. That of one seed is over units
    alone, by `interval_of`.

    Args:
        values: (k, S, P).
        statistic: within a seed, a name in `STATISTICS`.
        average: over seeds, "mean" or "iqm".
        resamples: how many draws.
        seed: the same seed gives the same interval.
        level: share of intervals that should hold the true value.

    Raises:
        ValueError: no seeds or units, or numbers that are not finite.
    """
    data, over = _values(values), AVERAGES[average]
    if data.shape[1] == 1:
        return interval_of(
            *data[:, 0], statistic=statistic, resamples=resamples, seed=seed, level=level
        )
    drawn = over(resampled(data, statistic, resamples, seed), axis=0)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(over(per_seed(data, statistic))), float(low), float(high))


def seeds_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    statistic: str = "mean",
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> SeedDifference:
    """How much a metric of ``a`` exceeds that of ``b``, paired by seed and unit.

    The interval draws the same seeds and units for both; the test is `crossed_p`. With one seed
    both are those of `difference_of`, over units alone, and say nothing of another seed.

    Args:
        a: (k, S, P).
        b: the same, seed by seed and unit by unit.
        statistic: within a seed.
        resamples: for the interval.
        seed: the same seed gives the same interval.
        level: of the interval.

    Raises:
        ValueError: the shapes differ, or numbers are not finite.
    """
    left, right = _values(a), _values(b)
    if left.shape != right.shape:
        raise ValueError(f"pairs must match: a has shape {left.shape}, b {right.shape}")
    ours, theirs = per_seed(left, statistic), per_seed(right, statistic)
    if left.shape[1] == 1:
        found = difference_of(
            left[:, 0], right[:, 0], statistic=statistic, resamples=resamples, seed=seed,
            level=level,
        )  # fmt: skip
        return SeedDifference(*found, None, cliffs_delta(ours, theirs))
    drawn = [resampled(x, statistic, resamples, seed).mean(axis=0) for x in (left, right)]
    low, high = np.quantile(drawn[0] - drawn[1], [(1 - level) / 2, (1 + level) / 2])
    return SeedDifference(
        float(ours.mean() - theirs.mean()),
        float(low),
        float(high),
        crossed_p(left, right, statistic=statistic),
        cohens_d(ours, theirs),
        cliffs_delta(ours, theirs),
    )


def crossed_p(a: ArrayLike, b: ArrayLike, *, statistic: str = "mean") -> float:
    """Two-sided p of the difference of ``a`` and ``b``, paired by seed and unit.

    The larger of two: the p of Student's t over seeds, and the p of min F' (Clark 1973,
    doi:10.1016/S0022-5371(73)80014-3). The latter tests whether the difference holds for other
    seeds and other units at once. There ``t^2 = d^2 / (v_seeds + v_units)``, with degrees of
    freedom by Satterthwaite. Alone, min F' has too many false positives with two or three seeds,
    and t over seeds ignores the units. A permutation of whole seeds would need no normal
    distribution. But with S seeds its p is at least 2 / 2^S, so three seeds could never reach 0.05.

    Args:
        a: (k, S, P).
        b: the same, seed by seed and unit by unit.
        statistic: within a seed. The variance over units is that of the jackknife.

    Returns:
        1.0 for one seed, which says nothing of another.
    """
    from scipy import stats

    left, right = _values(a), _values(b)
    _, seeds, units = left.shape
    if seeds == 1 or np.array_equal(left, right):
        return 1.0
    own = per_seed(left, statistic) - per_seed(right, statistic)
    over_seeds = float(own.var(ddof=1)) / seeds
    over_units = 0.0
    if units > 1:
        without = (_without_each(left, statistic) - _without_each(right, statistic)).mean(axis=0)
        over_units = float(without.var()) * (units - 1)
    difference, noise = abs(float(own.mean())), over_seeds + over_units
    if noise == 0:
        return 1.0 if difference == 0 else 0.0
    freedom = noise**2 / (over_seeds**2 / (seeds - 1) + over_units**2 / max(units - 1, 1))
    both = 2 * stats.t.sf(difference / np.sqrt(noise), freedom)
    alone = 2 * stats.t.sf(difference / np.sqrt(over_seeds), seeds - 1) if over_seeds else 0.0
    return float(max(both, alone))


def _without_each(data: Floats, statistic: str) -> Floats:
    """(S, P): the statistic of each seed without each of the units."""
    return FROM_SUMS[statistic](data.sum(axis=-1, keepdims=True) - data, data.shape[-1] - 1)


def cohens_d(a: ArrayLike, b: ArrayLike) -> float | None:
    """Cohen's d of pairs (d_z): the mean of the differences over their standard deviation.

    None for fewer than two pairs, and where all differences are equal.

    >>> cohens_d([3.0, 5.0, 4.0], [1.0, 1.0, 1.0])
    3.0
    """
    differences = np.asarray(a, float) - np.asarray(b, float)
    if len(differences) < 2 or np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        return None
    return float(differences.mean() / differences.std(ddof=1))


def cliffs_delta(a: ArrayLike, b: ArrayLike) -> float:
    """Cliff's delta, in [-1, 1]: how much likelier a value of a is above one of b than below it.

    Cliff 1993, doi:10.1037/0033-2909.114.3.494.

    >>> cliffs_delta([2.0, 4.0], [1.0, 3.0])
    0.5
    """
    signs = np.sign(np.subtract.outer(np.asarray(a, float), np.asarray(b, float)))
    return float(signs.mean())


def _values(values: ArrayLike) -> Floats:
    data = np.asarray(values, float)
    if data.ndim != 3 or not data.size:
        raise ValueError(f"values should be (columns, seeds, units), got the shape {data.shape}")
    if not np.isfinite(data).all():
        raise ValueError("values hold numbers that are not finite")
    return data


def resampled(data: Floats, statistic: str, resamples: int, seed: int) -> Floats:
    """(S, resamples): in each column S drawn seeds with their statistics over drawn units.

    The same seed and shape draw the same seeds and units, so two variants stay paired.
    """
    _, seeds, units = data.shape
    random = np.random.default_rng(seed)
    counts = random.multinomial(units, np.full(units, 1 / units), size=resamples)
    sums = data @ counts.T  # (k, S, resamples)
    found = FROM_SUMS[statistic](sums, units)
    picked = random.integers(seeds, size=(seeds, resamples))
    return np.take_along_axis(found, picked, axis=0)
