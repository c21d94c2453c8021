"""The batch that a step learns from, and what the memory keeps of the step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mht.algorithms.base import EXAMPLES, PAIRS, ROLLOUTS
from mht.algorithms.batch import Batch, Examples, Outcome, Rollouts, Stats
from mht.algorithms.mixes.base import Mix, Moment
from mht.algorithms.pairs import best_and_worst
from mht.core.errors import UserError
from mht.core.records import Rollout, Scored
from mht.data.examples.example import collate_prompts, collate_sft
from mht.data.text.sample import Sample
from mht.devices.base import Devices
from mht.generation.sampling.rollout import Responder
from mht.memory import Attempt
from mht.rewards import Reward
from mht.training.attempts import as_examples
from mht.training.background import background
from mht.training.figures import text_stats
from mht.training.hints import Hinted, with_hints
from mht.training.practice import Practice

Scoring = Callable[[], tuple[Scored, float]]


@dataclass(frozen=True)
class GivenExamples:
    """Examples of a step.

    Attributes:
        part: as the algorithm gets them; the policy's own responses are the first rows.
        own: the policy's own responses that it learns.
        rows: of the training data, for the other rows.
    """

    part: Examples
    own: Sequence[Attempt]
    rows: Sequence[int]

    @property
    def tokens(self) -> float:
        """Real tokens, prompts included."""
        return float(self.part.tensors["attention_mask"].sum())


@dataclass(frozen=True)
class GivenRollouts:
    """Responses of a step.

    Attributes:
        part: as the algorithm gets them.
        rows: B rows of the training data.
        hinted: what they were sampled for.
        samples: the responses as texts.
        scoring: the reward's answer and its seconds.
        sample_s: seconds until they were sampled.
    """

    part: Rollouts
    rows: Sequence[int]
    hinted: Hinted
    samples: Sequence[Sample]
    scoring: Scoring
    sample_s: float

    @property
    def tokens(self) -> float:
        """Sampled tokens."""
        return float(self.part.rollout.lengths.sum())


@dataclass(frozen=True)
class Given:
    """All that a step is given."""

    examples: GivenExamples | None
    rollouts: GivenRollouts | None

    @property
    def tokens(self) -> float:
        """All tokens of the step."""
        return sum(part.tokens for part in (self.examples, self.rollouts) if part)


class Feed:
    """Takes the next of the training data, samples, scores, and remembers what came of it.

    Args:
        practice: the training data with the memory.
        responder: draws responses.
        devices: this process among those that train.
        generator: of the responses.
        reward: a reward or a function; None is none.
        mix: weights the prompts and gives hints.
    """

    def __init__(
        self,
        practice: Practice,
        responder: Responder,
        devices: Devices,
        generator: torch.Generator,
        reward: Any,
        mix: Mix,
    ):
        self.practice, self.responder, self.devices = practice, responder, devices
        self.generator, self.reward, self.mix = generator, reward, mix

    @contextmanager
    def given(self, needs: frozenset[str], moment: Moment) -> Iterator[tuple[Batch, Given]]:
        """What an algorithm needs for its next step; the block ends no sooner than the scoring."""
        with ExitStack() as stack:
            examples = self._examples(moment) if EXAMPLES in needs else None
            rollouts = None
            if needs & {ROLLOUTS, PAIRS}:
                rollouts = stack.enter_context(self._rollouts(moment))
            yield self._batch(needs, examples, rollouts), Given(examples, rollouts)

    def _batch(
        self,
        needs: frozenset[str],
        examples: GivenExamples | None,
        rollouts: GivenRollouts | None,
    ) -> Batch:
        part = rollouts.part if rollouts else None
        return Batch(
            examples.part if examples else None,
            part if ROLLOUTS in needs else None,
            best_and_worst(part.rollout, part.scores()) if part and PAIRS in needs else None,
        )

    def _examples(self, moment: Moment) -> GivenExamples:
        practice = self.practice
        own = practice.draw_own_responses()
        rows = practice.take_sft_rows(len(own))
        own_rows = [attempt.row for attempt in own]
        examples = [*as_examples(own, practice.examples(own_rows)), *practice.examples(rows)]
        batch = collate_sft(examples, self.responder.pad_id)
        weights = self._weights(moment, [*own_rows, *rows])
        return GivenExamples(Examples(batch, weights), own, rows)

    @contextmanager
    def _rollouts(self, moment: Moment) -> Iterator[GivenRollouts]:
        began = time.perf_counter()
        practice, responder = self.practice, self.responder
        rows = practice.take_ppo_rows()
        shares = self.mix.hints(moment, practice.prompts(rows))
        hinted = with_hints(practice.examples(rows), shares)
        prompts = collate_prompts(hinted.examples, responder.pad_id)
        rollout = self.devices.draw(responder, *prompts, self.generator)
        sampled = time.perf_counter()
        samples = responder.samples(rollout, hinted.examples, hinted.lengths)
        past = practice.draw_past(responder.pad_id, rollout.response_ids.device)
        items = [example.item for example in hinted.examples]
        weights = self._weights(moment, rows)
        with self._scoring(samples) as result:
            part = Rollouts(rollout, lambda: result()[0].score, items, past, weights)
            yield GivenRollouts(part, rows, hinted, samples, result, sampled - began)

    def _weights(self, moment: Moment, rows: Sequence[int]) -> Tensor | None:
        weights = self.mix.weights(moment, self.practice.prompts(rows))
        return None if weights is None else torch.tensor(weights, dtype=torch.float32)

    @contextmanager
    def _scoring(self, samples: list[Sample]) -> Iterator[Scoring]:
        """The main process's scoring, beside a GPU's passes that need no score; its seconds."""
        devices = self.devices
        with background(
            lambda: self._scored(samples) if devices.is_main else Scored([]), devices.device
        ) as result:
            yield cache(lambda: devices.on_main(result))

    def _scored(self, samples: list[Sample]) -> Scored:
        if self.reward is None:
            raise UserError("PPO steps need a reward: give HybridTrainer a reward_fn")
        if isinstance(self.reward, Reward):
            return self.reward.evaluate(samples)
        score = self.reward
        return Scored(
            [float(score(s.response, s.target, prompt=s.prompt, item=s.item)) for s in samples]
        )

    def remember(self, given: Given, outcome: Outcome, moment: Moment) -> Stats:
        """Remember what came of a step; figures of the batch and of the memory."""
        stats: Stats = {}
        if given.examples:
            stats |= self._remember_examples(given.examples, outcome, moment)
        if given.rollouts:
            stats |= self._remember_rollouts(given.rollouts, outcome)
        return stats

    def _remember_examples(self, given: GivenExamples, outcome: Outcome, moment: Moment) -> Stats:
        losses = outcome.losses[len(given.own) :] or [math.nan] * len(given.rows)
        return self.practice.remember_examples(given.rows, losses, moment.step, given.own)

    def _remember_rollouts(self, given: GivenRollouts, outcome: Outcome) -> Stats:
        scored, scoring_s = given.scoring()
        surprises = outcome.surprises or [math.nan] * len(given.rows)
        free = given.hinted.free  # a response to a hint is none to the prompt alone
        remembered = self.practice.remember_attempts(
            [given.rows[row] for row in free],
            _rows(given.part.rollout, free),
            [given.samples[row] for row in free],
            [scored.score[row] for row in free],
            [surprises[row] for row in free],
        )
        return {
            **text_stats(given.samples, scored),
            **remembered,
            **given.hinted.figures,
            "time/sample_s": given.sample_s,
            "time/reward_s": scoring_s,  # on a GPU beside the assessment, which waits for it
        }


def _rows(rollout: Rollout, rows: Sequence[int]) -> Rollout:
    if len(rows) == len(rollout):
        return rollout
    return rollout.rows(torch.tensor(rows, dtype=torch.int64, device=rollout.response_ids.device))
