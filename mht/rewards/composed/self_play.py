"""How often a response beats the reference, or the policy's own earlier answers: self_play."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from mht.core.errors import RewardError
from mht.data.text.sample import Sample
from mht.rewards.base import UNIT, Example, Positive, Range, Reward, State, reward
from mht.rewards.scoring import refuse_low, unit

Book = dict[str, list[str]]  # a prompt's key to answers, the prompt that came up last at the end


@reward("self_play")
class SelfPlay(Reward):
    """The chance that the judge prefers the response to its opponent's answer, in [0, 1].

    ``sigmoid((judge(response) - judge(opponent)) / temperature)``, the model of Bradley and Terry,
    or who wins: 1, 0.5 for a draw, 0; the mean over the opponents. A win rate against answers of
    the same policy is the reward of SPO (arXiv:2401.04056) and SPPO (arXiv:2405.00675). The
    opponents stay frozen for a while, as in SPIN (arXiv:2401.01335).

    Departures: a judge of single texts replaces the preference model, and PPO replaces their
    losses. Opponents are answers kept from training, not new samples of a frozen policy.

    Earlier answers are kept per prompt while training and not in evaluation. They become opponents
    when the pool is refreshed, and stay the same until the next time. Which of a prompt's answers
    a response meets follows from a hash of both, the prompt and the number of batches so far. A
    prompt that comes up for the first time plays against the target; without a target as well,
    the response gets 0.5.

    The judge scores responses and opponents as one batch. Its scores of the responses are logged
    under ``<name>.judge``, the number of opponents of each response under ``<name>.games``.

    Attributes:
        judge: any reward for which more is better.
        against: "reference", the target in the data, or "earlier" answers of the policy.
        count: "probability", or "wins".
        temperature: of the probability, in the judge's unit: about the difference between a good
            and a bad answer. For a judge between 0 and 1 that is 0.1 rather than 1.
        opponents: the most earlier answers that each response meets.
        pool_size: earlier answers kept per prompt, the newest.
        max_prompts: prompts with earlier answers, those that came up last.
        refresh_every: batches between two refreshes of the pool.
    """

    family: ClassVar[str] = "learned"
    needs: ClassVar[str] = "a judge; a target, or prompts that come up again"
    score_range: ClassVar[Range] = UNIT
    example: ClassVar[Example] = {"judge": {"type": "rouge_l"}}

    judge: Reward
    against: Literal["reference", "earlier"] = "reference"
    count: Literal["probability", "wins"] = "probability"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    opponents: Positive = 1
    pool_size: Positive = 8
    max_prompts: Positive = 10_000
    refresh_every: Positive = 1

    _batches: int = PrivateAttr(0)
    _pool: Book = PrivateAttr(default_factory=dict)
    _waiting: Book = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _judge_points_up(self) -> SelfPlay:
        refuse_low(self.children())
        return self

    def children(self) -> dict[str, Reward]:
        """``judge``."""
        return {"judge": self.judge}

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The win rates; no state changes."""
        return self._raw(list(samples), "reward", False, {})

    def _raw(
        self, samples: list[Sample], name: str, update: bool, below: dict[str, list[float]]
    ) -> list[float]:
        games = [(i, other) for i, s in enumerate(samples) for other in self._others(s)]
        others = [replace(samples[i], response=other) for i, other in games]
        judged = self.judge.evaluate([*samples, *others], f"{name}.judge", update=update)
        below |= {key: values[: len(samples)] for key, values in judged.components.items()}
        points: list[list[float]] = [[] for _ in samples]
        for (i, _), theirs in zip(games, judged.score[len(samples) :], strict=True):
            points[i].append(self._points(judged.score[i] - theirs))
        below[f"{name}.games"] = [float(len(p)) for p in points]
        return [fmean(p) if p else 0.5 for p in points]

    def _points(self, ahead: float) -> float:
        if self.count == "wins":
            return 0.5 if ahead == 0 else float(ahead > 0)
        return unit(ahead / self.temperature, -math.inf, math.inf)  # the sigmoid

    def _others(self, sample: Sample) -> list[str]:
        """The answers that the response is compared with."""
        earlier = self._pool.get(digest(sample.prompt), ()) if self.against == "earlier" else ()
        if not earlier:
            return [sample.target] if sample.target else []
        game = (str(self._batches), sample.prompt, sample.response)
        return sorted(earlier, key=lambda answer: digest(*game, answer))[: self.opponents]

    def observe(self, samples: Sequence[Sample], scores: Sequence[float]) -> None:
        """Keep the batch's answers; refresh the pool when it is time."""
        self._batches += 1
        if self.against == "reference":
            return
        answers: dict[str, set[str]] = {}
        for sample in samples:
            answers.setdefault(digest(sample.prompt), set()).add(sample.response)
        for key in sorted(answers):  # by hash: the order within a batch is of no account
            self._keep(self._waiting, key, sorted(answers[key], key=digest))
        if self._batches % self.refresh_every == 0:
            for key, kept in self._waiting.items():
                self._keep(self._pool, key, kept)
            self._waiting.clear()

    def _keep(self, book: Book, key: str, answers: list[str]) -> None:
        known = [answer for answer in book.pop(key, []) if answer not in answers]
        book[key] = [*known, *answers][-self.pool_size :]
        if len(book) > self.max_prompts:
            del book[next(iter(book))]

    def get_state(self) -> State:
        """How many batches there were, the pool, and what waits to get into it."""
        books = {"pool": self._pool, "waiting": self._waiting}
        pairs = {name: [[key, list(a)] for key, a in book.items()] for name, book in books.items()}
        return {"batches": self._batches, **pairs}

    def set_state(self, state: State) -> None:
        """Put all of that back."""
        try:
            self._batches = int(state["batches"])
            self._pool = _book(state["pool"])
            self._waiting = _book(state["waiting"])
        except (KeyError, TypeError, ValueError) as error:
            raise RewardError(f"the saved state of self_play is not whole ({error!r})") from None


def _book(pairs: Any) -> Book:
    return {str(key): [str(answer) for answer in answers] for key, answers in pairs}


def digest(*texts: str) -> str:
    """16 hex digits of the texts' sha256; lone surrogates are texts too."""
    joined = "\x1f".join(texts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(joined).hexdigest()[:16]
