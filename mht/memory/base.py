"""The base of all memories: stored responses, and each prompt's practice and class of difficulty.

The caller and a memory name rows of the training data by their numbers; `Rows` has their texts. A
memory keeps its records by prompt, so rows with the same prompt share one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mht.core.component import Section, build, registry
from mht.core.errors import UserError
from mht.memory.best import best
from mht.memory.difficulty import CLASSES, EASY, HARD, MEDIUM, classes, difficulties
from mht.memory.ranking import Ranking
from mht.memory.rows import Rows
from mht.memory.store import Attempt, Store

__all__ = ["EASY", "HARD", "MEDIUM", "Attempt", "Memory", "Rows", "make_memory", "memory"]

MEMORIES = registry("memory")
memory = MEMORIES.register
Ints = NDArray[np.int64]
MEANS = {"mean_score": -1.0, "mean_loss": 1.0, "sft_loss": 1.0}  # and which way is hard
RECORDS = {
    "mean_score": np.nan, "mean_loss": np.nan, "sft_loss": np.nan, "practised": 0, "last": -1,
}  # fmt: skip


class Memory(ABC):
    """Stores attempts and each prompt's results, and chooses the rows to practise next.

    `Rows.numbers` numbers the prompts; if all prompts differ these are the rows' numbers. A
    practice step is a call of `remember` or `saw`; ``clock`` counts them.

    Args:
        rows: the training data.
        options: the options of the kind.
        capacity: maximum number of stored responses; `Store` describes which are deleted first.
        easy: the share of prompts in the class easy (`difficulty.classes`).
        hard: the share in the class hard.
        score_weight: of the place by score, relative to 1 for the place by loss (`difficulties`).
        newest: weight of the newest score or loss in a prompt's running mean.

    Attributes:
        store: the responses.
        records: arrays (prompts,) by name. ``mean_score``, ``mean_loss`` and ``sft_loss`` are
            running means, NaN before the first value. ``practised`` counts SFT and PPO steps.
            ``last`` is the clock at the last practice, -1 for never.
        clock: practice steps so far.
        Options: the section of params.yaml below ``memory.<kind>``; its fields are the options of
            the kind.
    """

    Options: ClassVar[type[Section]] = Section

    def __init__(
        self,
        rows: Rows,
        options: Any,
        *,
        capacity: int = 20_000,
        easy: float = 0.33,
        hard: float = 0.33,
        score_weight: float = 1.0,
        newest: float = 0.5,
    ):
        self.rows, self.options, self.easy, self.hard = rows, options, easy, hard
        self.score_weight, self.newest = score_weight, newest
        self.store = Store(capacity, rows.numbers)
        self.records: dict[str, Any] = {
            name: np.full(len(rows.first), empty) for name, empty in RECORDS.items()
        }
        self.clock = 0
        self.rank_all()

    @classmethod
    def needs_embeddings(cls, options: Section) -> bool:
        """Whether the constructor takes ``embeddings`` (rows, D) of the prompts."""
        return False

    # -- what happened ----------------------------------------------------------------------

    def remember(self, attempts: Sequence[Attempt]) -> None:
        """Record the attempts of one PPO step."""
        if not attempts:
            return
        prompts = self.rows.numbers[[attempt.row for attempt in attempts]]
        self._average("mean_score", prompts, [attempt.score for attempt in attempts])
        self._average("mean_loss", prompts, [attempt.loss for attempt in attempts])
        self._practise(prompts, "mean_score", "mean_loss")
        self.store.add(attempts, self.classes, self.records["practised"])

    def saw(self, rows: Sequence[int], losses: Sequence[float], step: int) -> None:
        """Record the rows of one SFT step.

        Args:
            rows: of the training data.
            losses: nats per token of each row's target before the step; NaN if not measured.
            step: number of SFT and PPO steps before this one.
        """
        if not len(rows):
            return
        prompts = self.rows.numbers[np.asarray(rows)]
        self._average("sft_loss", prompts, losses)
        self._practise(prompts, "sft_loss")

    def _average(self, name: str, prompts: Ints, values: Sequence[float]) -> None:
        """Move the prompts' running means towards the mean of their values."""
        record, numbers = self.records[name], np.asarray(values, np.float64)
        known = ~np.isnan(numbers)
        own, which = np.unique(prompts[known], return_inverse=True)
        mean = np.bincount(which, numbers[known]) / np.bincount(which)
        before = record[own]
        moved = before + self.newest * (mean - before)
        record[own] = np.where(np.isnan(before), mean, moved)

    def _practise(self, prompts: Ints, *changed: str) -> None:
        self.clock += 1
        np.add.at(self.records["practised"], prompts, 1)
        self.records["last"][prompts] = self.clock
        prompts = np.unique(prompts)
        for name in changed:
            self._rankings[name].change(prompts, MEANS[name] * self.records[name][prompts])
        self._classify()
        self.practised(prompts)

    def rank_all(self) -> None:
        """Compute every prompt's difficulty and class from the running means."""
        prompts = np.arange(len(self.rows.first))
        self._rankings = {name: Ranking(len(prompts)) for name in MEANS}
        for name, ranking in self._rankings.items():
            ranking.change(prompts, MEANS[name] * self.records[name])
        self._classify()

    def _classify(self) -> None:
        by_score, by_loss, by_sft_loss = (self._rankings[name].places for name in MEANS)
        self.difficulty = difficulties(by_score, by_loss, by_sft_loss, self.score_weight)
        self.classes = classes(self.difficulty, self.easy, self.hard)

    def practised(self, prompts: Ints) -> None:  # noqa: B027 (not every kind needs it)
        """Update a kind after the prompts (n,), each once, were practised and classified."""

    # -- what to do -------------------------------------------------------------------------

    @abstractmethod
    def choose(self, n: int, generator: np.random.Generator) -> list[int]:
        """At most n rows to practise; fewer if fewer are worth practising."""

    def best(self, n: int, generator: np.random.Generator, min_quantile: float) -> list[Attempt]:
        """At most n of the best attempts, one for each prompt, drawn uniformly.

        If all scores are equal, no attempt counts as best.

        Args:
            n: how many.
            generator: draws.
            min_quantile: the quantile from which a score is good (`best.best`).
        """
        columns = self.store.columns
        slots = np.flatnonzero(columns["order"] >= 0)
        scores, ended, order = (columns[name][slots] for name in ("score", "ended", "order"))
        prompts = self.rows.numbers[columns["row"][slots]]
        good = best(prompts, scores, ended, order, min_quantile)
        return self.attempts(_some(slots[good], n, generator))

    def recent(self, n: int, generator: np.random.Generator, *, since_step: int) -> list[Attempt]:
        """At most n attempts of this run from a step on, drawn uniformly."""
        slots = self.store.used
        young = slots[self.store.columns["step"][slots] >= max(since_step, 0)]
        return self.attempts(_some(young, n, generator))

    def attempts(self, slots: Ints) -> list[Attempt]:
        """The attempts in some slots of the store."""
        return [self._attempt(slot) for slot in slots.tolist()]

    def _attempt(self, slot: int) -> Attempt:
        store = self.store
        values = {name: column[slot].item() for name, column in store.columns.items()}
        row, length = values["row"], values["length"]
        return Attempt(
            row=row,
            prompt=self.rows.prompts[row],
            response=store.texts[slot],
            target=self.rows.targets[row],
            prompt_ids=list(self.rows.prompt_ids[row]),
            response_ids=store.ids[slot, :length].tolist(),
            logprobs=store.logprobs[slot, :length].tolist(),
            **{name: values[name] for name in ("ended", "score", "loss", "step")},
        )

    # -- what it is like ----------------------------------------------------------------------

    @property
    def known(self) -> Ints:
        """The numbers of the prompts with any record."""
        return np.flatnonzero(self.records["practised"])

    @property
    def nbytes(self) -> int:
        """Bytes of the memory without the training data."""
        arrays = [*self.records.values(), self.difficulty, self.classes]
        return self.store.nbytes + sum(a.nbytes for a in arrays)

    def statistics(self) -> dict[str, float]:
        """Figures for curves, about the remembered prompts and the stored responses."""
        known = self.known
        count = max(len(known), 1)
        found = {"responses": float(len(self.store)), "prompts": float(len(known))}
        found["bytes"] = float(self.nbytes)
        of_each = np.bincount(self.classes[known], minlength=len(CLASSES)) / count
        found |= {f"{name}_share": float(of_each[i]) for i, name in enumerate(CLASSES)}
        found["times_practised"] = float(self.records["practised"][known].sum() / count)
        ages = self.clock - self.records["last"][known]
        return found | {"age_steps": float(ages.sum() / count)}

    def report(self, tables: Path, plots: Path) -> None:  # noqa: B027 (not every kind has one)
        """Write a kind's own outputs, beside ``memory.parquet``.

        Args:
            tables: the model's folder.
            plots: the folder of the variant's plots.
        """

    # -- what lasts ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint: tensors, numbers and lists of text."""
        import torch

        state = {**self.store.state_dict(), **self.records, "clock": self.clock}
        found = {
            k: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v
            for k, v in state.items()
        }
        return found | {"own": self.own_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        arrays = {k: v.numpy() if hasattr(v, "numpy") else v for k, v in state.items()}
        for name in self.records:
            self.records[name] = arrays[name].copy()
        self.clock = arrays["clock"]
        self.store.load_state_dict(arrays)
        self.load_own_state(arrays["own"])
        self.rank_all()

    def own_state(self) -> dict[str, Any]:
        """A kind's own state beside the store and the records, as JSON-able data."""
        return {}

    def load_own_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 (not all have one)
        """Restore what `own_state` returned."""


def _some(slots: Ints, n: int, generator: np.random.Generator) -> Ints:
    """At most n of the slots, in random order."""
    return slots[np.argsort(generator.random(len(slots)), kind="stable")[:n]]


def make_memory(kind: str, rows: Rows, **options: Any) -> Memory:
    """A new memory of a kind.

    Args:
        kind: "adaptive", "markov", or a name that a plug-in adds.
        rows: the training data.
        options: those of the kind, and those of `Memory`.

    Raises:
        UserError: the kind does not exist.
        ConfigError: a wrong option.
    """
    try:
        cls = MEMORIES.get(kind)
    except KeyError as error:
        raise UserError(error.args[0]) from None
    own = {name: options.pop(name) for name in cls.Options.model_fields if name in options}
    return cls(rows, build(cls.Options, own, path=f"memory.{kind}"), **options)
