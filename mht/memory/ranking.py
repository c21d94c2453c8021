"""Updates the places of values when only few values change."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mht.memory.difficulty import mid_ranks

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Ranking:
    """Keeps the result of `difficulty.places` without sorting all values again.

    Args:
        count: number of values, which are all missing (NaN) at first.

    Attributes:
        places: (count,) as `difficulty.places` gives them.
    """

    def __init__(self, count: int):
        self.places = np.full(count, np.nan)
        self._order, self._ordered = np.zeros(0, np.int64), np.zeros(0)

    def change(self, which: Ints, values: Floats) -> None:
        """Change some of the values.

        Args:
            which: (n,) indices of the values, each once.
            values: (n,) the new values; NaN is missing.
        """
        leaves = np.zeros(len(self.places), np.bool_)
        leaves[which] = True
        self.places[which] = np.nan
        stays = ~leaves[self._order]
        order, ordered = self._order[stays], self._ordered[stays]
        by_value = np.argsort(values)[: len(values) - int(np.isnan(values).sum())]
        which, values = which[by_value], values[by_value]
        at = np.searchsorted(ordered, values)
        self._order = np.insert(order, at, which)
        self._ordered = np.insert(ordered, at, values)
        self.places[self._order] = mid_ranks(self._ordered)
