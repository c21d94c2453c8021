"""Easy, medium or hard: a row's place among all that are remembered. Pure functions.

Nothing here has a fixed threshold: values are turned into places (mid-ranks), so a difficulty says
how a row compares with the others now. Rows that are alike share the mean of their places; where
all are alike, every one stands at 0.5 and is medium.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CLASSES = ("easy", "medium", "hard")
EASY, MEDIUM, HARD = range(3)


def places(values: Floats) -> Floats:
    """Mid-ranks, scaled: (n,) numbers to (n,) places in (0, 1), the smallest first.

    Equal values share the mean of their places. NaN, which is not known, stays NaN and takes no
    place.

    >>> places(np.array([3.0, 1.0, 1.0, 7.0])).tolist()
    [0.625, 0.25, 0.25, 0.875]
    """
    found = np.full(len(values), np.nan)
    known = ~np.isnan(values)
    count = int(known.sum())
    if not count:
        return found
    order = np.argsort(values[known], kind="stable")
    ordered = values[known][order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[starts[1:], count]
    middles = np.repeat((starts + ends) / (2 * count), ends - starts)
    own = np.empty(count)
    own[order] = middles
    found[known] = own
    return found


def difficulties(scores: Floats, losses: Floats, sft_losses: Floats, score_weight: float) -> Floats:
    """How hard each row is, in (0, 1): its place by the mean of its places.

    A low score is hard and so is a high loss. The two losses are not comparable, so each is ranked
    among its own kind; a row that has both has the mean of both places.

    Args:
        scores: (n,) mean scores, NaN where there is none.
        losses: (n,) of the rows' attempts, NaN where there is none.
        sft_losses: (n,) nats per token of the rows' targets, NaN where there is none.
        score_weight: of the place by score, against 1 for that by loss.

    Returns:
        (n,) places, NaN for rows of which nothing is known.
    """
    by_loss = _mean([places(losses), places(sft_losses)], [1.0, 1.0])
    return places(_mean([places(-scores), by_loss], [score_weight, 1.0]))


def _mean(columns: list[Floats], weights: list[float]) -> Floats:
    """The weighted mean of what is known of each row; NaN where nothing is.

    Where all that is known has weight 0 it is 0.5.
    """
    known = [~np.isnan(column) for column in columns]
    total = np.sum([w * k for w, k in zip(weights, known, strict=True)], axis=0)
    summed = np.sum(
        [w * np.where(k, c, 0.0) for w, k, c in zip(weights, known, columns, strict=True)], axis=0
    )
    mean = np.divide(summed, total, out=np.full(len(total), 0.5), where=total > 0)
    return np.where(np.any(known, axis=0), np.round(mean, 12), np.nan)


def classes(difficulty: Floats, easy: float, hard: float) -> NDArray[np.int8]:
    """`EASY`, `MEDIUM` or `HARD` for each place; what is not known (NaN) is medium.

    Args:
        difficulty: (n,) places in (0, 1).
        easy: the share from the easiest on that is called easy.
        hard: the share from the hardest on that is called hard.

    >>> classes(np.array([0.1, 0.5, 0.9]), 0.33, 0.33).tolist()
    [0, 1, 2]
    """
    found = np.full(len(difficulty), MEDIUM, dtype=np.int8)
    found[difficulty < easy] = EASY
    found[difficulty > 1 - hard] = HARD
    return found
