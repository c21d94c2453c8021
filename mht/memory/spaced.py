"""Spaced repetition: a Leitner system counted in practice steps. Pure functions.

Cards that were solved move up a box and those that failed go back to the first; a box comes up half
as often as the one below it (Leitner 1972; Reddy et al. 2016, arXiv:1602.07032; for training a
network: Amiri et al. 2017, "Repeat before Forgetting", D17-1255). What is solved or failed is not
an absolute score but the row's place among all that are remembered: easy is solved, hard failed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mht.memory.difficulty import EASY, HARD

Ints = NDArray[np.int64]


def moved(boxes: Ints, classes: NDArray[np.int8], count: int) -> Ints:
    """The boxes (n,) of rows after practice, counted from 0.

    An easy row goes up one, at most to ``count - 1``, a hard one back to the first; a medium one
    stays.

    >>> moved(np.array([0, 4, 3]), np.array([0, 0, 2], np.int8), 5).tolist()
    [1, 4, 0]
    """
    up = np.minimum(boxes + 1, count - 1)
    return np.where(classes == EASY, up, np.where(classes == HARD, 0, boxes))


def next_due(clock: int, boxes: Ints, interval: int) -> Ints:
    """The practice step (n,) from which on each row comes back: twice as far off in every box.

    >>> next_due(10, np.array([0, 1, 3]), 2).tolist()
    [12, 14, 26]
    """
    return clock + interval * (np.int64(1) << boxes)
