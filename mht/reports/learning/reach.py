"""How soon variants reach a score: restricted means, shares reached, and ratios paired by seed.

A seed whose curve never gets there is censored at the end of its budget. The restricted mean is
that of min(time, horizon), which needs no guess about what would have come later (Royston & Parmar
2013, doi:10.1186/1471-2288-13-152).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mht.evaluation.statistics import TOO_FEW, Floats, Interval

Curve = Sequence[Mapping[str, float]]  # the looks at validation prompts, in order
COSTS = {"optimizer_steps": "optimiser steps", "sampled_tokens": "sampled tokens",
         "seconds": "seconds"}  # fmt: skip


class Times(NamedTuple):
    """When the seeds of one variant got there.

    Attributes:
        at: (S,) the cost at the first look at or above the score; infinity is never.
        end: (S,) the cost at the last look: until then the seed was watched.
    """

    at: Floats
    end: Floats

    @property
    def horizon(self) -> float:
        """Until when all of its seeds were watched."""
        return float(self.end.min())


class Reached(NamedTuple):
    """How soon one variant gets there.

    Attributes:
        share: of its seeds that do.
        time: the restricted mean with its interval over seeds.
        horizon: to which it is restricted.
    """

    share: float
    time: Interval
    horizon: float


class Ratio(NamedTuple):
    """The restricted mean of ``a`` as a share of that of ``b``, paired by seed.

    Attributes:
        ratio: below 1 where a is there sooner.
        low: of the 95% interval over seeds.
        high: of the same.
        horizon: to which both are restricted: all seeds of both were watched until then.
        share_a: of a's seeds that are there by then.
        share_b: of b's.
    """

    ratio: float
    low: float
    high: float
    horizon: float
    share_a: float
    share_b: float


def times_to(curves: Sequence[Curve], *, metric: str, score: float, cost: str) -> Times:
    """When each seed's curve is first at or above a score.

    Args:
        curves: one for each seed; a row has the costs so far and the metrics of that look.
        metric: of the rows; those without it are passed over.
        score: to reach.
        cost: a key of the rows, such as "optimizer_steps".

    Raises:
        ValueError: a curve has no row with the metric.

    >>> curve = [{"steps": 0, "score": 0.1}, {"steps": 5, "score": 0.6}, {"steps": 9, "score": 0.4}]
    >>> times_to([curve], metric="score", score=0.5, cost="steps")
    Times(at=array([5.]), end=array([9.]))
    """
    at, end = [], []
    for curve in curves:
        rows = [row for row in curve if metric in row]
        if not rows:
            raise ValueError(f"a learning curve has no {metric!r}")
        at.append(next((row[cost] for row in rows if row[metric] >= score), math.inf))
        end.append(rows[-1][cost])
    return Times(np.asarray(at, float), np.asarray(end, float))


def since(curve: Curve, steps: float) -> Curve:
    """A curve whose costs are counted from its last look at or before ``steps``.

    What all variants do before, such as the SFT stage, then dilutes no ratio. Metrics stay.

    Raises:
        ValueError: the first look is later than that, or the last is not.

    >>> since([{"optimizer_steps": n, "score": 0.5} for n in (0, 40, 60)], 50)[1]
    {'optimizer_steps': 20, 'score': 0.5}
    """
    before = [n for n, row in enumerate(curve) if row["optimizer_steps"] <= steps]
    if not before:
        raise ValueError(f"no look at or before {steps:g} optimiser steps")
    if len(before) == len(curve):
        raise ValueError(f"no look after {steps:g} optimiser steps")
    first = curve[before[-1]]
    return [
        {k: v - first[k] if k in COSTS else v for k, v in row.items()}
        for row in curve[before[-1] :]
    ]


def restricted(times: ArrayLike, horizon: float) -> Floats:
    """min(time, horizon) of each seed (S,).

    >>> restricted([3.0, float("inf")], 10.0).tolist()
    [3.0, 10.0]
    """
    return np.minimum(np.asarray(times, float), horizon)


def reached(times: Times, *, resamples: int = 2000, seed: int = 0) -> Reached:
    """How soon a variant gets there, with the percentile interval over draws of its seeds."""
    horizon = times.horizon
    found = restricted(times.at, horizon)
    low, high = _ends(found[_draws(len(found), resamples, seed)].mean(axis=1), len(found))
    share = float((times.at <= horizon).mean())
    return Reached(share, Interval(float(found.mean()), low, high), horizon)


def reach_ratio(a: Times, b: Times, *, resamples: int = 2000, seed: int = 0) -> Ratio | None:
    """How much sooner ``a`` gets there than ``b``; each draw takes the same seeds of both.

    Where b is often censored, the ratio of what is not seen would be further from 1 than this one.

    Returns:
        None where no seed of either gets there, or b needs nothing: no ratio says anything then.

    Raises:
        ValueError: the numbers of seeds differ.
    """
    if a.at.shape != b.at.shape:
        raise ValueError(f"pairs must match: {len(a.at)} and {len(b.at)} seeds")
    horizon = min(a.horizon, b.horizon)
    ours, theirs = restricted(a.at, horizon), restricted(b.at, horizon)
    shares = [float((times.at <= horizon).mean()) for times in (a, b)]
    if not any(shares) or not theirs.min() > 0:
        return None
    drawn = _draws(len(ours), resamples, seed)
    low, high = _ends(ours[drawn].mean(axis=1) / theirs[drawn].mean(axis=1), len(ours))
    return Ratio(float(ours.mean() / theirs.mean()), low, high, horizon, shares[0], shares[1])


def _draws(seeds: int, resamples: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.intp]]:
    """(resamples, S) positions of seeds, drawn with replacement."""
    return np.random.default_rng(seed).integers(seeds, size=(resamples, seeds))


def _ends(drawn: Floats, seeds: int, level: float = 0.95) -> tuple[float, float]:
    if seeds == 1:
        return TOO_FEW
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
