"""The rows of the training data that come next: in the data's order, or by the memory's choice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mht.algorithms.batch import Replayed
from mht.algorithms.mixes.base import Prompts
from mht.algorithms.ppo.replay import replayed
from mht.config import HybridConfig
from mht.core.errors import ConfigError, UserError
from mht.data.examples.example import Example
from mht.memory import Attempt, Memory, table
from mht.rewards import Reward
from mht.training.attempts import attempts_of
from mht.training.cursor import Cursor
from mht.training.start_memory import StartError, memory_identity, start_memory

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from mht.core.records import Rollout
    from mht.data.text.sample import Sample

FILE = "memory.parquet"


@contextmanager
def section_named(section: str) -> Iterator[None]:
    """Give the problems of a memory the full paths of the settings.

    Raises:
        ConfigError: in place of a `StartError`.
    """
    try:
        yield
    except StartError as error:
        raise ConfigError([f"{section}.{p}" for p in error.problems], "params.yaml") from None


class Practice:
    """The training data, by row number, with the memory of the attempts at each row.

    With several processes each has one, which remembers and draws the same.

    Args:
        examples: the training data; None where there is none to walk through.
        config: the batches' sizes and the memory's settings.
        seed: of data order and the memory's draws.
        tokenizer: of the rows' token ids.
        reward: what gives the scores; None is a function or nothing.
        embeddings: (examples, D) of their prompts, for a memory that groups them.

    Attributes:
        cursors: walks through the rows, by phase.
        memory: None where it is switched off.
        generator: draws what the memory chooses.
        ppo_steps: made so far.
        identity: what a stored memory must have been made with.

    Raises:
        ConfigError: a memory without training data.
        StartError: the memory's settings, or what it is to begin with, do not fit.
    """

    def __init__(
        self,
        examples: Sequence[Example] | None,
        config: HybridConfig,
        seed: int,
        tokenizer: PreTrainedTokenizerBase,
        reward: Reward | None = None,
        embeddings: NDArray[np.float32] | None = None,
    ):
        self.config, self._examples = config, examples or ()
        self.cursors: dict[str, Cursor[int]] = {}
        if examples:
            rows = range(len(examples))
            self.cursors["sft"] = Cursor(
                rows, seed + 1000, batch_size=config.sft_batch_size, length=self._length
            )
            self.cursors["ppo"] = Cursor(rows, seed + 2000)
        self.identity: dict[str, Any] = {}
        self.memory: Memory | None = None
        if config.memory.is_on:
            self.identity = memory_identity(config, tokenizer, reward)
            self.memory = start_memory(config, self._examples, embeddings, self.identity)
        self.generator = np.random.default_rng(seed + 3000)
        self.ppo_steps = 0

    def _length(self, row: int) -> int:
        example = self._examples[row]
        return len(example.prompt_ids) + len(example.target_ids)

    # -- before a step ------------------------------------------------------------------------

    def draw_own_responses(self) -> list[Attempt]:
        """Draw the policy's own best responses for the next SFT batch."""
        own = self.config.memory.own_responses
        wanted = round(own.share * self._rehearsed_per_step)
        if self.memory is None or not wanted:
            return []
        return self.memory.best(wanted, self.generator, own.min_quantile)

    def take_sft_rows(self, own: int = 0) -> list[int]:
        """Take the rows of the next SFT batch, which has ``own`` responses of the policy too."""
        return self._take("sft", self.config.sft_batch_size - own, self._rehearsed_per_step - own)

    @property
    def _rehearsed_per_step(self) -> int:
        return round(self.config.memory.rehearsal * self.config.sft_batch_size)

    def take_ppo_rows(self) -> list[int]:
        """Take the rows whose prompts come next, each as often as it is to be answered."""
        size = self.config.prompts_per_step
        rows = self._take("ppo", size, round(self.config.memory.prompts * size))
        return [row for row in rows for _ in range(self.config.responses_per_prompt)]

    def _take(self, phase: str, size: int, wanted: int) -> list[int]:
        """Take at most ``wanted`` rows that the memory chooses, then the next of the data."""
        if phase not in self.cursors:
            raise UserError("HybridTrainer.train needs train_data")
        chosen = self.memory.choose(wanted, self.generator) if self.memory and wanted else []
        return [*chosen, *self.cursors[phase].take(size - len(chosen))]

    def examples(self, rows: Sequence[int]) -> list[Example]:
        """The rows' examples."""
        return [self._examples[row] for row in rows]

    def draw_past(self, pad_id: int, device: torch.device) -> Replayed | None:
        """Draw what the next PPO step replays; None for nothing, or where too little is kept."""
        wanted = self.config.replayed_per_step
        if self.memory is None or not wanted:
            return None
        since = self.ppo_steps - self.config.memory.replay.staleness
        attempts = self.memory.recent(wanted, self.generator, since_step=since)
        if len(attempts) < wanted:
            return None
        items = [example.item for example in self.examples([a.row for a in attempts])]
        return replayed(attempts, items, step=self.ppo_steps, pad_id=pad_id, device=device)

    def prompts(self, rows: Sequence[int]) -> Prompts:
        """The memory's records of the prompts of some rows."""
        if self.memory is None:
            unknown = [math.nan] * len(rows)
            return Prompts(rows, unknown, unknown, unknown)
        numbers, records = self.memory.rows.numbers[list(rows)], self.memory.records
        names = ("mean_score", "sft_loss", "practised")
        return Prompts(rows, *(records[name][numbers].astype(float).tolist() for name in names))

    # -- after it -----------------------------------------------------------------------------

    def remember_attempts(
        self,
        rows: Sequence[int],
        rollout: Rollout,
        samples: Sequence[Sample],
        scores: Sequence[float],
        surprises: Sequence[float],
    ) -> dict[str, float]:
        """Remember the attempts of a PPO step.

        Args:
            rows: B rows of the training data.
            rollout: their responses.
            samples: the same as texts.
            scores: the reward's.
            surprises: B mean absolute advantages, before whitening; NaN where a step gives none.

        Returns:
            The memory's figures; empty where it is switched off.
        """
        if self.memory is None:
            return {}
        examples = self.examples(rows)
        self.memory.remember(
            attempts_of(rows, examples, rollout, samples, scores, surprises, self.ppo_steps)
        )
        self.ppo_steps += 1
        return self._figures()

    def remember_examples(
        self,
        rows: Sequence[int],
        losses: Sequence[float],
        step: int,
        own: Sequence[Attempt] = (),
    ) -> dict[str, float]:
        """Remember the rows of an SFT step with their losses, nats per token.

        Own responses that it learnt are figures alone: a loss is of a row's own target.
        """
        if self.memory is None:
            return {}
        self.memory.saw(rows, losses, step)
        figures = self._figures()
        if self.config.memory.own_responses.share:
            mean = sum(attempt.score for attempt in own) / max(len(own), 1)
            figures |= {"own_responses/rows": float(len(own)), "own_responses/score_mean": mean}
        return figures

    def _figures(self) -> dict[str, float]:
        assert self.memory is not None
        return {f"memory/{name}": value for name, value in self.memory.statistics().items()}

    # -- what lasts: files --------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write the memory, where there is one, beside the policy."""
        if self.memory is not None:
            table.save(self.memory, Path(folder) / FILE, self.identity)

    # -- what lasts: checkpoints --------------------------------------------------------------

    @property
    def positions(self) -> list[int | None]:
        """Where the walks are, SFT's and PPO's."""
        return [c.position if (c := self.cursors.get(p)) else None for p in ("sft", "ppo")]

    @positions.setter
    def positions(self, positions: Sequence[int | None]) -> None:
        for cursor, position in zip(self.cursors.values(), positions, strict=False):
            cursor.position = position or 0

    def state_dict(self) -> dict[str, Any]:
        """Where the walks are; the memory's state and that of its draws, where it is on."""
        state: dict[str, Any] = {"positions": self.positions}
        if self.memory is not None:
            state["memory"] = self.memory.state_dict()
            state["draws"] = self.generator.bit_generator.state
            state["ppo_steps"] = self.ppo_steps
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.positions = state["positions"]
        if self.memory is not None:
            self.memory.load_state_dict(state["memory"])
            self.generator.bit_generator.state = state["draws"]
            self.ppo_steps = state["ppo_steps"]
