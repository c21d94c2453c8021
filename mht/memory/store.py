"""The stored responses: a table with a fixed number of rows, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from sys import getsizeof
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mht.memory.difficulty import HARD

Ints = NDArray[np.int64]
SCALARS = {
    "row": np.int64, "order": np.int64, "step": np.int64, "length": np.int64, "ended": np.bool_,
    "score": np.float64, "loss": np.float64,
}  # fmt: skip
LAST = np.int64(1) << 62  # above every other part of `_value`


@dataclass(frozen=True)
class Attempt:
    """One response of the policy to a row of the training data, with its results.

    Attributes:
        row: number of the row.
        prompt: its text.
        response: the text without special tokens.
        target: the reference text.
        prompt_ids: without padding.
        response_ids: as sampled, EOS included where the policy gave it.
        logprobs: nats of each response token when it was sampled.
        ended: by EOS, not by the length limit.
        score: the reward's.
        loss: mean absolute advantage of its tokens, before whitening. It measures the critic's
            error, as the TD error does in prioritised replay (Schaul et al. 2015,
            arXiv:1511.05952).
        step: the PPO step that sampled it, from 0; -1 for an earlier run.
    """

    row: int
    prompt: str
    response: str
    target: str
    prompt_ids: list[int]
    response_ids: list[int]
    logprobs: list[float]
    ended: bool
    score: float
    loss: float
    step: int


class Store:
    """Stores at most ``capacity`` responses; `Rows` has the texts of the rows.

    A full store deletes responses to easy prompts before those to medium and hard ones. Among these
    it deletes those of the most practised prompt first, and among these the oldest. The newest
    response to a hard prompt is deleted last.

    Args:
        capacity: maximum number of responses.
        numbers: (rows,) the number of the prompt of each row of the training data.

    Attributes:
        columns: the arrays (capacity,) of `SCALARS` by name. ``order`` numbers all responses ever
            stored and is -1 in an empty slot.
        ids: (capacity, W) int32 response ids, ``length`` of each row are real; W grows as needed.
        logprobs: (capacity, W) float32.
        texts: capacity responses.
    """

    def __init__(self, capacity: int, numbers: Ints):
        self.capacity, self._numbers = capacity, numbers
        self.columns: dict[str, Any] = {
            name: np.zeros(capacity, dtype) for name, dtype in SCALARS.items()
        }
        self.columns["order"][:] = -1
        self.ids = np.zeros((capacity, 0), np.int32)
        self.logprobs = np.zeros((capacity, 0), np.float32)
        self.texts = [""] * capacity
        self._newest = np.full(int(numbers.max(initial=-1)) + 1, -1, np.int64)
        self._given = self._size = 0
        self._text_bytes = capacity * getsizeof("")

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        """Bytes of the store, the texts included."""
        arrays = [*self.columns.values(), self.ids, self.logprobs, self._newest]
        return sum(a.nbytes for a in arrays) + self._text_bytes

    @property
    def used(self) -> Ints:
        """The slots with a response, oldest first."""
        slots = np.flatnonzero(self.columns["order"] >= 0)
        return slots[np.argsort(self.columns["order"][slots])]

    def add(self, attempts: Sequence[Attempt], classes: NDArray[np.int8], practised: Ints) -> None:
        """Store the attempts; a full store deletes others.

        Args:
            attempts: the newest last.
            classes: (prompts,) of difficulty.
            practised: (prompts,) number of practice steps of each.
        """
        attempts = attempts[-self.capacity :]
        if not attempts:
            return
        slots = self._free(len(attempts), classes, practised)
        order = self._given + np.arange(len(attempts))
        lengths = np.array([len(attempt.response_ids) for attempt in attempts])
        for name, column in self.columns.items():
            known = {"order": order, "length": lengths}.get(name)
            column[slots] = [getattr(a, name) for a in attempts] if known is None else known
        self._widen(int(lengths.max()))
        real = np.arange(self.ids.shape[1]) < lengths[:, None]
        self.ids[slots] = _padded(real, [a.response_ids for a in attempts])
        self.logprobs[slots] = _padded(real, [a.logprobs for a in attempts])
        for slot, attempt in zip(slots.tolist(), attempts, strict=True):
            self._set_text(slot, attempt.response)
            self._newest[self._numbers[attempt.row]] = slot
        self._given += len(attempts)
        self._size += len(attempts)

    def _free(self, count: int, classes: NDArray[np.int8], practised: Ints) -> Ints:
        """``count`` slots to overwrite: empty ones first, then those with the lowest value."""
        if self._size + count <= self.capacity:
            return np.flatnonzero(self.columns["order"] < 0)[:count]
        values = self._values(classes, practised)
        slots = np.argpartition(values, count - 1)[:count]
        slots = slots[np.argsort(values[slots])]
        prompts = self._numbers[self.columns["row"][slots]]
        gone = (self._newest[prompts] == slots) & (self.columns["order"][slots] >= 0)
        self._newest[prompts[gone]] = -1
        self._size -= int((self.columns["order"][slots] >= 0).sum())
        self.columns["order"][slots] = -1
        return slots

    def _values(self, classes: NDArray[np.int8], practised: Ints) -> Ints:
        """(capacity,) the value of each slot as one number, so that the lowest is found fast."""
        rarely = ((1 << 20) - 1) - np.minimum(practised, (1 << 20) - 1)
        of_prompts = (classes.astype(np.int64) << 60) | (rarely << 40)
        values = of_prompts[self._numbers[self.columns["row"]]] | self.columns["order"]
        newest = self._newest[classes == HARD]
        values[newest[newest >= 0]] += LAST
        if self._size < self.capacity:
            values[self.columns["order"] < 0] = -1
        return values

    def _widen(self, width: int) -> None:
        more = width - self.ids.shape[1]
        if more > 0:
            self.ids = np.pad(self.ids, ((0, 0), (0, more)))
            self.logprobs = np.pad(self.logprobs, ((0, 0), (0, more)))

    def _set_text(self, slot: int, text: str) -> None:
        self._text_bytes += getsizeof(text) - getsizeof(self.texts[slot])
        self.texts[slot] = text

    def state_dict(self) -> dict[str, Any]:
        """The whole state: arrays by name, ``texts`` and ``given``."""
        used = self.used
        width = int(self.columns["length"][used].max(initial=0))
        arrays = {name: column[used] for name, column in self.columns.items()}
        arrays |= {"slot": used, "ids": self.ids[used, :width]}
        arrays["logprobs"] = self.logprobs[used, :width]
        return {**arrays, "texts": [self.texts[i] for i in used], "given": self._given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        slots = np.asarray(state["slot"])
        for name, column in self.columns.items():
            column[:] = -1 if name == "order" else 0
            column[slots] = state[name]
        shape = (self.capacity, state["ids"].shape[1])
        self.ids, self.logprobs = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        self.ids[slots], self.logprobs[slots] = state["ids"], state["logprobs"]
        for slot in range(self.capacity):
            self._set_text(slot, "")
        for slot, text in zip(slots.tolist(), state["texts"], strict=True):
            self._set_text(slot, text)
        self._newest[:] = -1
        self._newest[self._numbers[self.columns["row"][slots]]] = slots  # the newest comes last
        self._given, self._size = int(state["given"]), len(slots)


def _padded(real: NDArray[np.bool_], lists: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """(n, W) the numbers of the lists, padded with 0."""
    found = np.zeros(real.shape)
    found[real] = np.fromiter(chain.from_iterable(lists), np.float64)
    return found
