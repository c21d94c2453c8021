"""An endless, shuffled, repeatable walk through a data set; its state is one number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class Cursor(Generic[T]):
    """Gives batch after batch; each pass is a new permutation that the seed decides.

    Args:
        items: the data set; not empty.
        seed: of the permutations.

    Attributes:
        position: items given so far; setting it resumes exactly there.
    """

    def __init__(self, items: Sequence[T], seed: int):
        if not items:
            raise ValueError("there is nothing to walk through")
        self.items, self.seed, self.position = items, seed, 0
        self._epoch, self._order = -1, []

    def take(self, n: int) -> list[T]:
        """The next n items; a batch may reach into the next pass."""
        taken = [self._at(self.position + i) for i in range(n)]
        self.position += n
        return taken

    def _at(self, position: int) -> T:
        epoch, place = divmod(position, len(self.items))
        if epoch != self._epoch:
            shuffle = torch.Generator().manual_seed(self.seed + epoch)
            self._epoch = epoch
            self._order = torch.randperm(len(self.items), generator=shuffle).tolist()
        return self.items[self._order[place]]
