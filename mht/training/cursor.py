"""An endless, shuffled, repeatable walk through a data set; its state is one number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch

from mht.data.examples.order import bucketed

T = TypeVar("T")


class Cursor(Generic[T]):
    """Gives batch after batch; each pass is a new permutation that the seed decides.

    Args:
        items: the data set; not empty.
        seed: of the permutations.
        batch_size: how many items will be taken together.
        length: of an item, so that batches hold items of like length; None does not look.

    Attributes:
        position: items given so far; setting it resumes exactly there.
    """

    def __init__(
        self,
        items: Sequence[T],
        seed: int,
        *,
        batch_size: int = 1,
        length: Callable[[T], int] | None = None,
    ):
        if not items:
            raise ValueError("there is nothing to walk through")
        self.items, self.seed, self.position = items, seed, 0
        self.batch_size = batch_size
        self._lengths = [0 if length is None else length(item) for item in items]
        self._epoch = -1
        self._order: list[int] = []

    def take(self, n: int) -> list[T]:
        """The next n items; a batch may reach into the next pass."""
        taken = [self._at(self.position + i) for i in range(n)]
        self.position += n
        return taken

    def _at(self, position: int) -> T:
        epoch, place = divmod(position, len(self.items))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed + epoch)
            self._epoch = epoch
            self._order = bucketed(self._lengths, self.batch_size, generator)
        return self.items[self._order[place]]
