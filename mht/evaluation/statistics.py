"""Intervals and differences: the bootstrap, and paired comparison of two variants.

A statistic is computed from columns with a value per unit, which is a prompt or a group of them.
``mean`` takes the values; ``perplexity`` takes negative log-likelihood sums and token counts.
Everything is vectorised and follows from the seed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
BATCH_VALUES = 2_000_000  # values held at once while resampling
ALPHA = 0.05  # a difference is clear where its adjusted p is below it
UNCLEAR = "unclear"  # the verdict where a difference may be chance
TOO_FEW = (math.nan, math.nan)  # the ends of an interval over a single unit


class Interval(NamedTuple):
    """A statistic with its confidence interval, whose ends are NaN over a single unit."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """``a`` minus ``b``, with a confidence interval and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float


def mean(values: Floats, *, axis: int = -1) -> Any:
    """The arithmetic mean along an axis."""
    return np.mean(values, axis=axis)


def perplexity(nll: Floats, tokens: Floats, *, axis: int = -1) -> Any:
    """``exp(sum(nll) / sum(tokens))`` along an axis: every token counts the same.

    Args:
        nll: per text, the summed negative log-likelihood in nats.
        tokens: per text, how many tokens that sum covers.
        axis: the texts' axis.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.exp(np.sum(nll, axis=axis) / np.sum(tokens, axis=axis))


STATISTICS: dict[str, Callable[..., Any]] = {"mean": mean, "perplexity": perplexity}


def bootstrap(
    *columns: ArrayLike,
    statistic: str = "mean",
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """A statistic and its bootstrap confidence interval.

    Bias-corrected and accelerated (BCa; Efron 1987, doi:10.2307/2289144). BCa is not defined where
    all resamples lie on one side of the statistic, say; then the percentile interval is given.
    Where all units are equal, or there is only one, the interval is the value itself.

    Args:
        columns: (n,) numbers each: values for ``mean``; nll sums and token counts for
            ``perplexity``. Units are drawn whole, so columns stay aligned.
        statistic: a name in `STATISTICS`.
        resamples: how many times the units are drawn with replacement.
        seed: the same seed gives the same interval.
        level: share of intervals that should hold the true value.

    Raises:
        ValueError: no units, columns of different lengths, or a statistic that is not finite.

    >>> bootstrap([1.0, 1.0, 1.0])
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    data = _columns(columns)
    function = STATISTICS[statistic]
    low, high = _interval(data, function, resamples, seed, level)
    return Interval(_value(function, data, statistic), low, high)


def interval_of(*columns: ArrayLike, **options: Any) -> Interval:
    """What `bootstrap` gives, to be shown: a single unit says nothing of others, so no ends.

    >>> interval_of([0.5])
    Interval(mean=0.5, low=nan, high=nan)
    """
    found = bootstrap(*columns, **options)
    return found if len(np.asarray(columns[0])) > 1 else Interval(found.mean, *TOO_FEW)


def paired_difference(
    a: ArrayLike | Sequence[ArrayLike],
    b: ArrayLike | Sequence[ArrayLike],
    *,
    statistic: str = "mean",
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """How much a statistic of ``a`` exceeds that of ``b``, measured on the same units.

    The interval is a bootstrap over units. The p-value is that of a paired permutation test
    (Fisher 1935): under the null hypothesis the two variants may be swapped on any unit. It is
    exact where there are no more than ``resamples`` ways to swap.

    Args:
        a: (n,) values, or (k, n) columns of a statistic with several.
        b: the same for the other variant, unit by unit.
        statistic: a name in `STATISTICS`.
        resamples: for the interval and for the test.
        seed: the same seed gives the same answer.
        level: of the interval.

    Raises:
        ValueError: a and b have different shapes, are empty or not finite.
    """
    function = STATISTICS[statistic]
    left, right = np.atleast_2d(np.asarray(a, float)), np.atleast_2d(np.asarray(b, float))
    if left.shape != right.shape:
        raise ValueError(f"pairs must match: a has shape {left.shape}, b {right.shape}")
    width = len(left)

    def difference(*columns: Floats, axis: int = -1) -> Any:
        return function(*columns[:width], axis=axis) - function(*columns[width:], axis=axis)

    data = _columns([*left, *right])
    value = _value(difference, data, statistic)
    if np.array_equal(left, right):
        return Difference(0.0, 0.0, 0.0, 1.0)
    low, high = _interval(data, difference, resamples, seed, level)
    return Difference(value, low, high, _p_value(data, difference, resamples, seed))


def difference_of(a: ArrayLike, b: ArrayLike, **options: Any) -> Difference:
    """What `paired_difference` gives, to be shown: no ends of a single pair."""
    found = paired_difference(a, b, **options)
    alone = np.atleast_2d(np.asarray(a)).shape[-1] == 1
    return Difference(found.difference, *TOO_FEW, found.p) if alone else found


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for asking several questions at once (Holm 1979, jstor.org/stable/4615733).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return [float(p) for p in adjusted]


def verdict(direction: str, difference: float, p: float) -> str:
    """The word for a difference: better, worse, differs, or unclear where it may be chance.

    Args:
        direction: "higher" or "lower", whichever is better, or "neither".
        difference: how much the one exceeds the other.
        p: two-sided, adjusted for all questions asked together (`holm`).

    >>> verdict("lower", -0.5, 0.01), verdict("neither", 1.0, 0.01), verdict("higher", 1.0, 0.05)
    ('better', 'differs', 'unclear')
    """
    if p >= ALPHA:
        return UNCLEAR
    if direction not in ("higher", "lower"):
        return "differs"
    return "better" if (difference > 0) == (direction == "higher") else "worse"


def _columns(columns: Sequence[ArrayLike]) -> list[Floats]:
    data = [np.asarray(column, dtype=float) for column in columns]
    if not data or data[0].ndim != 1 or not len(data[0]):
        raise ValueError("a statistic needs at least one unit")
    if len({len(column) for column in data}) > 1:
        raise ValueError(f"columns differ in length: {[len(column) for column in data]}")
    return data


def _value(function: Callable[..., Any], data: Sequence[Floats], name: str) -> float:
    value = float(function(*data))
    if not np.isfinite(value):
        raise ValueError(f"the {name} of the values is {value}")
    return value


def _interval(
    data: list[Floats], function: Callable[..., Any], resamples: int, seed: int, level: float
) -> tuple[float, float]:
    from scipy import stats

    value = float(function(*data))
    if all(np.ptp(column) == 0 for column in data):  # one unit, or all of them equal
        return value, value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where BCa is not defined: answered below
        found = stats.bootstrap(
            data,
            function,
            n_resamples=resamples,
            batch=_batch(data),
            vectorized=True,
            paired=True,
            confidence_level=level,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    low, high = found.confidence_interval
    if not np.isfinite([low, high]).all():
        drawn = found.bootstrap_distribution
        low, high = np.quantile(drawn[np.isfinite(drawn)], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _p_value(
    data: list[Floats], difference: Callable[..., Any], resamples: int, seed: int
) -> float:
    from scipy import stats

    width, n = len(data) // 2, len(data[0])
    pooled = [np.concatenate([data[i], data[width + i]]) for i in range(width)]

    def swapped(a: Any, b: Any, axis: int = -1) -> Any:  # whole units are swapped, by position
        a, b = a.astype(int), b.astype(int)
        return difference(*(c[a] for c in pooled), *(c[b] for c in pooled), axis=axis)

    if n == 1:
        return 1.0
    found = stats.permutation_test(
        (np.arange(n), np.arange(n, 2 * n)),
        swapped,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=_batch(data),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def _batch(data: Sequence[Floats]) -> int:
    return max(1, BATCH_VALUES // (len(data) * len(data[0])))
