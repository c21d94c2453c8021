"""Ranks rows from easy to hard among all remembered rows. Pure functions.

There is no fixed threshold. Values become places (mid-ranks), so a difficulty compares a row with
the others now. Equal rows share the mean of their places; if all are equal, each has 0.5 and is
medium.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CLASSES = ("easy", "medium", "hard")
EASY, MEDIUM, HARD = range(3)


def places(values: Floats) -> Floats:
    """Mid-ranks, scaled: (n,) numbers to (n,) places in (0, 1), the smallest first.

    Equal values share the mean of their places. NaN, a missing value, stays NaN and takes no place.

    >>> places(np.array([3.0, 1.0, 1.0, 7.0])).tolist()
    [0.625, 0.25, 0.25, 0.875]
    """
    known = np.flatnonzero(~np.isnan(values))  # numpy sorts fast where no NaN is
    order = known[np.argsort(values[known])]
    found = np.full(len(values), np.nan)
    found[order] = mid_ranks(values[order])
    return found


def mid_ranks(ordered: Floats) -> Floats:
    """The places (n,) of numbers in ascending order, without NaN."""
    count = len(ordered)
    starts = np.flatnonzero(np.r_[count > 0, ordered[1:] != ordered[:-1]])
    ends = np.append(starts[1:], count)
    return np.repeat((starts + ends) / (2 * max(count, 1)), ends - starts)


def difficulties(
    by_score: Floats, by_loss: Floats, by_sft_loss: Floats, score_weight: float
) -> Floats:
    """The difficulty (n,) of each row in (0, 1): its place by the mean of its places.

    A low score means hard, and so does a high loss. The two losses are not comparable, so each is
    ranked on its own. A row with both has the mean of both places.

    Args:
        by_score: (n,) places, the lowest score highest; NaN if missing.
        by_loss: (n,) places by the loss of the rows' attempts, NaN if missing.
        by_sft_loss: (n,) places by the loss of the rows' targets, NaN if missing.
        score_weight: of the place by score, relative to 1 for the place by loss.

    Returns:
        (n,) places, NaN for rows without any value.

    >>> nothing = np.full(2, np.nan)
    >>> difficulties(np.array([0.25, 0.75]), np.array([0.25, 0.75]), nothing, 1.0).tolist()
    [0.25, 0.75]
    >>> difficulties(np.array([0.25, 0.75]), np.array([0.75, 0.25]), nothing, 1.0).tolist()
    [0.5, 0.5]
    """
    mean = _mean(by_score, _mean(by_loss, by_sft_loss, 1.0), score_weight)
    return places(np.rint(mean * 2.0**40))  # the last bits of a sum make no difference


def _mean(a: Floats, b: Floats, weight: float) -> Floats:
    """The mean of each row's values, with a's weight relative to 1 for b; NaN without a value.

    It is 0.5 if the only value has weight 0.
    """
    no_a, no_b = np.isnan(a), np.isnan(b)
    alone = a if weight else np.where(no_a, np.nan, 0.5)
    both = np.where(no_a, b, (weight * a + b) / (weight + 1))
    return np.where(no_b, alone, both)


def classes(difficulty: Floats, easy: float, hard: float) -> NDArray[np.int8]:
    """`EASY`, `MEDIUM` or `HARD` for each place; a missing one (NaN) is medium.

    Args:
        difficulty: (n,) places in (0, 1).
        easy: the share of the easiest rows that are in the class easy.
        hard: the share of the hardest rows that are in the class hard.

    >>> classes(np.array([0.1, 0.5, 0.9]), 0.33, 0.33).tolist()
    [0, 1, 2]
    """
    found = np.full(len(difficulty), MEDIUM, dtype=np.int8)
    found[difficulty < easy] = EASY
    found[difficulty > 1 - hard] = HARD
    return found
