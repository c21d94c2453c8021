"""Random numbers of rows that have a seed each, so that the batch does not matter to a row."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # as signed 64-bit numbers, whose products wrap round
FIRST = 0xBF58476D1CE4E5B9 - 2**64
SECOND = 0x94D049BB133111EB - 2**64


def row_seeds(seed: int, prompts: Sequence[Sequence[int]]) -> list[int]:
    """A seed for each prompt, from its token ids and from how many of the same came before it.

    Neither the other prompts nor their order matter, and equal prompts are answered differently.

    Args:
        seed: of the whole.
        prompts: token ids.

    >>> a, b, again = row_seeds(0, [[5, 6], [7], [5, 6]])
    >>> [b, a] == row_seeds(0, [[7], [5, 6]]), a == again
    (True, False)
    """
    seen: Counter[tuple[int, ...]] = Counter()
    found = []
    for prompt in map(tuple, prompts):
        found.append(_hashed(seed, seen[prompt], *prompt))
        seen[prompt] += 1
    return found


def copies(seeds: Sequence[int], count: int) -> list[int]:
    """``count`` seeds for each of some; the first of each is the seed itself."""
    return [_hashed(s, c) if c else s for s in seeds for c in range(count)]


def _hashed(*numbers: int) -> int:
    """64 signed bits that any of the numbers changes."""
    digest = sha256(" ".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class RowSeeds:
    """A stream of random numbers for each row: SplitMix64.

    Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195. A row's numbers are those of its seed
    alone, whatever the other rows draw and for how long.

    Args:
        seeds: one for each row, 64 signed bits.
        device: where the numbers are wanted.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu"):
        self._states = torch.tensor(seeds, dtype=torch.int64, device=device)
        self._rows = torch.arange(len(seeds), device=device)

    def of(self, rows: Tensor) -> RowSeeds:
        """The streams of some rows (n,) int64, each once; the whole goes on where they leave it."""
        part = copy.copy(self)
        part._rows = self._rows[rows]
        return part

    def uniform(self, rows: int) -> Tensor:
        """(rows, 1) float64 in [0, 1): the next number of every row."""
        if rows != len(self._rows):
            raise ValueError(f"{len(self._rows)} rows have a seed, {rows} want a number")
        states = self._states[self._rows] + GOLDEN
        self._states[self._rows] = states
        return (_shifted(_mixed(states), 11).double() / 2**53)[:, None]


def _mixed(states: Tensor) -> Tensor:
    x = (states ^ _shifted(states, 30)) * FIRST
    x = (x ^ _shifted(x, 27)) * SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """To the right, filled with zeros as for unsigned numbers."""
    return (x >> bits) & (2 ** (64 - bits) - 1)
