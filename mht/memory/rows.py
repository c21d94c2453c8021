"""The training data of a memory: rows, and the prompts that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """The training data of a memory; index i is row i in every field.

    Attributes:
        prompts: texts.
        targets: reference texts.
        prompt_ids: token lists.
    """

    prompts: Sequence[str]
    targets: Sequence[str]
    prompt_ids: Sequence[list[int]]

    def __len__(self) -> int:
        return len(self.prompts)

    @cached_property
    def numbers(self) -> Ints:
        """(rows,) the number of each row's prompt, in the order of first occurrence."""
        found: dict[tuple[int, ...], int] = {}
        return np.array([found.setdefault(tuple(p), len(found)) for p in self.prompt_ids], np.int64)

    @cached_property
    def first(self) -> Ints:
        """(prompts,) the first row of each different prompt."""
        return np.unique(self.numbers, return_index=True)[1]

    @cached_property
    def sizes(self) -> Ints:
        """(prompts,) the number of rows of each different prompt."""
        return np.bincount(self.numbers)

    def draw(self, prompts: Ints, generator: np.random.Generator) -> Ints:
        """(n,) a row of each of the prompts (n,); a repeated prompt gets its other rows first.

        If every prompt has one row, no random number is drawn.
        """
        found = self.first[prompts]
        for prompt in np.unique(prompts[self.sizes[prompts] > 1]).tolist():
            at = np.flatnonzero(prompts == prompt)
            own = np.flatnonzero(self.numbers == prompt)
            found[at] = np.resize(generator.permutation(own), len(at))
        return found

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of all rows in their order."""
        digest = sha256()
        for row in zip(self.prompts, self.targets, self.prompt_ids, strict=True):
            digest.update(repr(row).encode(errors="surrogatepass"))
        return digest.hexdigest()
