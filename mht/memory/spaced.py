"""Spaced repetition: a Leitner system counted in practice steps. Pure functions.

Solved cards move up a box, and failed ones go back to the first. A box is due half as often as the
box below it (Leitner 1972; Reddy et al. 2016, arXiv:1602.07032). Amiri et al. 2017 train a network
this way ("Repeat before Forgetting", D17-1255). A row's place among all remembered rows decides
here, not an absolute score: easy rows count as solved, hard rows as failed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mht.memory.difficulty import EASY, HARD

Ints = NDArray[np.int64]


def moved(boxes: Ints, classes: NDArray[np.int8], count: int) -> Ints:
    """The boxes (n,) of rows after practice, counted from 0.

    An easy row moves up a box, at most to ``count - 1``. A hard row goes back to the first, and a
    medium row stays.

    >>> moved(np.array([0, 4, 3]), np.array([0, 0, 2], np.int8), 5).tolist()
    [1, 4, 0]
    """
    up = np.minimum(boxes + 1, count - 1)
    return np.where(classes == EASY, up, np.where(classes == HARD, 0, boxes))


def next_due(clock: int, boxes: Ints, interval: int) -> Ints:
    """The practice step (n,) at which each row is due; each box doubles the interval.

    >>> next_due(10, np.array([0, 1, 3]), 2).tolist()
    [12, 14, 26]
    """
    return clock + interval * (np.int64(1) << boxes)
