"""Orders in which to walk through data: shuffled, and with batches of like length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

POOL = 16  # batches whose items are sorted by length together


def bucketed(lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> list[int]:
    """A random permutation whose consecutive batches hold items of like length.

    Every item comes up once. Sorting within pools of 16 random batches leaves little padding and
    still mixes the data; the batches themselves come in random order.

    Args:
        lengths: of the items.
        batch_size: items that will be taken together.
        generator: the source of randomness.
    """
    import torch

    order = torch.randperm(len(lengths), generator=generator).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(order), POOL * batch_size):
        pool = sorted(order[start : start + POOL * batch_size], key=lambda i: lengths[i])
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    shuffled = torch.randperm(len(batches), generator=generator).tolist()
    return [item for k in shuffled for item in batches[k]]


def by_length(lengths: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    """The indices (N,) of rows in groups of at most ``size``, the longest rows first.

    Rows of like length go together, so that a group has little padding.

    >>> import torch
    >>> [group.tolist() for group in by_length(torch.tensor([1, 9, 3]), 2)]
    [[1, 2], [0]]
    """
    return lengths.argsort(descending=True, stable=True).split(size)
