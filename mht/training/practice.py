"""Which rows of the training data come next: in the data's order, or what the memory chooses."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
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
from mht.memory import Attempt, Memory, Rows, make_memory, table
from mht.rewards import Reward
from mht.training.cursor import Cursor

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from mht.core.records import Rollout
    from mht.data.text.sample import Sample

FILE = "memory.parquet"


class StartError(ConfigError):
    """A memory's settings don't fit the data or its start; their paths lack the section's name."""


@contextmanager
def section_named(section: str) -> Iterator[None]:
    """What is wrong with a memory gets the full path of the setting.

    Raises:
        ConfigError: in place of a `StartError`.
    """
    try:
        yield
    except StartError as error:
        raise ConfigError([f"{section}.{p}" for p in error.problems], "params.yaml") from None


class Practice:
    """The training data, by row number, with the memory of how each row went.

    With several processes each has one of its own, is told the same and draws the same.

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
        self.config, self._tokenizer, self._reward = config, tokenizer, reward
        self._examples = examples or ()
        self.cursors: dict[str, Cursor[int]] = {}
        if examples:
            rows = range(len(examples))
            self.cursors["sft"] = Cursor(
                rows, seed + 1000, batch_size=config.sft_batch_size, length=self._length
            )
            self.cursors["ppo"] = Cursor(rows, seed + 2000)
        self.memory = self._make_memory(embeddings) if config.memory.is_on else None
        self.generator = np.random.default_rng(seed + 3000)
        self.ppo_steps = 0
        if self.memory is not None and config.memory.start is not None:
            try:
                table.load(self.memory, config.memory.start, self.identity)
            except UserError as error:
                what = f"memory.start: {error}: give a memory of this task, or null"
                raise StartError([what]) from None

    def _length(self, row: int) -> int:
        example = self._examples[row]
        return len(example.prompt_ids) + len(example.target_ids)

    def _make_memory(self, embeddings: NDArray[np.float32] | None) -> Memory:
        settings, examples = self.config.memory, self._examples
        if not examples:
            what = f"{settings.type} remembers rows of the training data, and there is none"
            raise ConfigError([f"memory.type: {what}: give train_data, or set none"])
        rows = Rows(
            [e.prompt for e in examples],
            [e.target for e in examples],
            [e.prompt_ids for e in examples],
        )
        options = dict(settings.difficulty) | settings.options
        options |= {"embeddings": embeddings} if settings.groups_prompts else {}
        try:
            return make_memory(settings.type, rows, capacity=settings.capacity, **options)
        except ConfigError as error:
            raise StartError(error.problems) from None

    # -- before a step ------------------------------------------------------------------------

    def own_responses(self) -> list[Attempt]:
        """The policy's own best, which the next SFT batch learns beside its rows."""
        own = self.config.memory.own_responses
        wanted = round(own.share * self._rehearsed_per_step)
        if self.memory is None or not wanted:
            return []
        return self.memory.best(wanted, self.generator, own.min_quantile)

    def sft_rows(self, own: int = 0) -> list[int]:
        """The rows of the next SFT batch, beside so many of the policy's own responses."""
        return self._next("sft", self.config.sft_batch_size - own, self._rehearsed_per_step - own)

    @property
    def _rehearsed_per_step(self) -> int:
        return round(self.config.memory.rehearsal * self.config.sft_batch_size)

    def ppo_rows(self) -> list[int]:
        """The rows whose prompts come next, each as often as it is to be answered."""
        size = self.config.prompts_per_step
        rows = self._next("ppo", size, round(self.config.memory.prompts * size))
        return [row for row in rows for _ in range(self.config.responses_per_prompt)]

    def _next(self, phase: str, size: int, wanted: int) -> list[int]:
        """At most ``wanted`` rows that the memory chooses, then the next of the data."""
        if phase not in self.cursors:
            raise UserError("HybridTrainer.train needs train_data")
        chosen = self.memory.choose(wanted, self.generator) if self.memory and wanted else []
        return [*chosen, *self.cursors[phase].take(size - len(chosen))]

    def examples(self, rows: Sequence[int]) -> list[Example]:
        """The rows' examples."""
        return [self._examples[row] for row in rows]

    def as_examples(self, attempts: Sequence[Attempt]) -> list[Example]:
        """Attempts as examples with the response, token by token, for the target."""
        examples = self.examples([attempt.row for attempt in attempts])
        return [
            replace(example, target=own.response, target_ids=own.response_ids)
            for example, own in zip(examples, attempts, strict=True)
        ]

    def past(self, pad_id: int, device: torch.device) -> Replayed | None:
        """What the next PPO step replays; None where that is nothing, or not enough is kept."""
        wanted = self.config.replayed_per_step
        if self.memory is None or not wanted:
            return None
        since = self.ppo_steps - self.config.memory.replay.staleness
        attempts = self.memory.recent(wanted, self.generator, since_step=since)
        if len(attempts) < wanted:
            return None
        items = [example.item for example in self.examples([a.row for a in attempts])]
        return replayed(attempts, items, step=self.ppo_steps, pad_id=pad_id, device=device)

    def known(self, rows: Sequence[int]) -> Prompts:
        """What the memory knows of the prompts of some rows."""
        if self.memory is None:
            unknown = [math.nan] * len(rows)
            return Prompts(rows, unknown, unknown, unknown)
        numbers, records = self.memory.rows.numbers[list(rows)], self.memory.records
        names = ("mean_score", "sft_loss", "practised")
        return Prompts(rows, *(records[name][numbers].astype(float).tolist() for name in names))

    # -- after it -----------------------------------------------------------------------------

    def tried(
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
            surprises: B mean absolute advantages, before whitening; NaN where it is not known.

        Returns:
            The memory's figures; none where it is switched off.
        """
        if self.memory is None:
            return {}
        attempts = _attempts(rows, self.examples(rows), rollout, samples)
        self.memory.remember(
            [
                Attempt(**attempt, score=float(score), loss=loss, step=self.ppo_steps)
                for attempt, score, loss in zip(attempts, scores, surprises, strict=True)
            ]
        )
        self.ppo_steps += 1
        return self._figures()

    def rehearsed(
        self,
        rows: Sequence[int],
        losses: Sequence[float],
        step: int,
        own: Sequence[Attempt] = (),
    ) -> dict[str, float]:
        """Remember the rows of an SFT step with their losses, nats per token; as `tried`.

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

    @property
    def identity(self) -> dict[str, Any]:
        """What a memory is of no use without; the training data are checked by the memory itself.

        The tokenizer, for its token ids; the reward, which makes scores comparable; the
        temperature, for the logprobs; and the settings that its records follow from.
        """
        vocabulary = json.dumps(sorted(self._tokenizer.get_vocab().items()))
        settings = self.config.memory
        return {
            "tokenizer": sha256(vocabulary.encode()).hexdigest(),
            "reward": self._reward and self._reward.model_dump(mode="json"),
            "temperature": self.config.temperature,
            "memory.type": settings.type,
            "memory.difficulty": settings.difficulty.model_dump(),
            f"memory.{settings.type}": settings.options,
        }

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


def _attempts(
    rows: Sequence[int],
    examples: Sequence[Example],
    rollout: Rollout,
    samples: Sequence[Sample],
) -> list[dict[str, Any]]:
    """What is known of each attempt before it is scored."""
    assert rollout.logprobs is not None  # the trainer has sampled it
    lengths, ended = rollout.lengths.tolist(), rollout.ended.tolist()
    ids, logprobs = rollout.response_ids.tolist(), rollout.logprobs.tolist()
    return [
        {
            "row": row,
            "prompt": example.prompt,
            "response": samples[i].response,
            "target": example.target,
            "prompt_ids": example.prompt_ids,
            "response_ids": ids[i][: lengths[i]],
            "logprobs": logprobs[i][: lengths[i]],
            "ended": ended[i],
        }
        for i, (row, example) in enumerate(zip(rows, examples, strict=True))
    ]
