"""The memory of experience: what the trainer remembers, and how much of each batch it chooses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mht.core.bounds import Positive, Share, Weight
from mht.core.component import Section, refuse

AtLeastOne = Annotated[float, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class DifficultyConfig(Section):
    """What makes a prompt of the training data easy or hard: its place among those remembered.

    Attributes:
        easy: the share of prompts, from the easiest on, that are called easy.
        hard: the share, from the hardest on, that are called hard; the others are medium. Prompts
            that are alike share a place, so with ties the shares may come out smaller or larger.
        score_weight: of the place by score, against 1 for that by loss; 0 looks at losses alone.
        newest: the weight of the newest score or loss in the prompt's running mean; 1 forgets all
            before it.
    """

    easy: Share = 0.33
    hard: Share = 0.33
    score_weight: Weight = 1.0
    newest: Fraction = 0.5

    @model_validator(mode="after")
    def _fits_together(self) -> DifficultyConfig:
        if self.easy + self.hard > 1:
            what = f"{self.hard} with easy {self.easy} is more than all rows"
            refuse([("hard", f"{what}: set both so that they add up to 1 at most")])
        return self


class AdaptiveConfig(Section):
    """Practice by difficulty, spaced out in time.

    Attributes:
        exponent: a prompt is drawn with weight ``(1 / place) ** exponent``, place 1 the hardest
            (rank-based prioritisation, Schaul et al. 2015, arXiv:1511.05952); 0 is uniform.
        staleness: the share of the weight that goes by the steps since a prompt was practised
            (prioritised level replay, Jiang et al. 2020, arXiv:2010.03934).
        floor: the share of the weight that all prompts have alike, the easy ones too.
        boxes: of the Leitner system: a prompt found easy goes up a box, a hard one down to the
            first, and it comes back ``interval * 2 ** box`` practice steps later; 1 spaces nothing
            out.
        interval: practice steps (SFT and PPO steps) until a prompt of the first box is due again.
    """

    exponent: Weight = 0.7
    staleness: Share = 0.1
    floor: Share = 0.1
    boxes: Annotated[int, Field(ge=1, le=30)] = 5
    interval: Positive = 1

    @model_validator(mode="after")
    def _fits_together(self) -> AdaptiveConfig:
        if self.staleness + self.floor > 1:
            what = f"{self.floor} with staleness {self.staleness} is more than the whole weight"
            refuse([("floor", f"{what}: set both so that they add up to 1 at most")])
        return self


class MarkovConfig(Section):
    """A Markov chain over states of practice, along which each row of a batch moves.

    Attributes:
        states: "clusters": classes of difficulty x groups of prompts of like meaning; "rows": the
            different prompts, at most 20,000 of them.
        clusters: groups of prompts at most, each with its three classes of difficulty.
        alpha: of the update ``alpha * (reward + gamma * next_reward)``; it scales all transitions
            alike, so the probabilities are the same whatever it is.
        gamma: what the state that was reached counts beside the one that was left.
        decay: what is left of every transition after a PPO step.
        exploration: share of the moves that go to any state, all alike.
        out_degree: transitions kept of each state; the lightest goes first.
        signal: what is the reward of practising: "score", the response's; "regret", how far it is
            from the best score remembered, 0 to 1 at the worst; "progress", how much better it is
            than the prompt's mean so far.
        exponent: a prompt of a state is drawn with weight ``(1 / place) ** exponent``, place 1 the
            hardest of all; 0 is uniform.
    """

    states: Literal["clusters", "rows"] = "clusters"
    clusters: Annotated[int, Field(ge=1, le=1000)] = 8
    alpha: Fraction = 0.1
    gamma: Share = 0.9
    decay: Fraction = 0.9
    exploration: Share = 0.1
    out_degree: Positive = 32
    signal: Literal["score", "regret", "progress"] = "regret"
    exponent: Weight = 0.7


class OwnResponsesConfig(Section):
    """The policy's own best responses as SFT targets (rejection-sampling fine-tuning).

    Attributes:
        share: of the rehearsed rows of an SFT batch, rounded; these learn a remembered response
            that ended by itself, in place of the data's target.
        min_quantile: of each prompt its best response is learnt where its score is at least this
            quantile of all remembered ones, or where the prompt has ``1 / (1 - min_quantile)``
            responses or more and it is better than their mean.
    """

    share: Share = 0.0
    min_quantile: Share = 0.9


class ReplayConfig(Section):
    """Past responses in the PPO update.

    Attributes:
        share: each minibatch has ``share * minibatch_size`` past responses, rounded, beside its
            fresh ones; so a PPO step has as many optimiser steps as without, of more rows. 0 is
            none, and the first step has none to replay.
        staleness: the oldest that are replayed were sampled this many PPO steps ago.
        max_weight: importance weights are cut off here: 1 counts no token more than a fresh one.
    """

    share: Share = 0.0
    staleness: Positive = 4
    max_weight: AtLeastOne = 2.0


class MemoryConfig(Section):
    """What the trainer remembers of its attempts, and what it practises for it.

    Attributes:
        type: "none" remembers nothing, and all keys below do nothing. "adaptive" practises prompts
            of the training data by difficulty and in growing intervals, "markov" by a chain over
            states of practice.
        capacity: responses kept; when it is full those to easy prompts go first, of these the most
            practised prompt's, of these the oldest.
        prompts: share of a PPO step's prompts that the memory chooses; the rest are the next of the
            data, in their order.
        rehearsal: share of an SFT batch that the memory chooses.
        start: a memory.parquet of an earlier run to begin with; null begins with nothing.
        difficulty: which rows are easy and which hard.
        adaptive: of type adaptive.
        markov: of type markov.
        own_responses: as SFT targets.
        replay: in the PPO update.
    """

    type: Literal["none", "adaptive", "markov"] = "none"
    capacity: Positive = 20_000
    prompts: Share = 0.5
    rehearsal: Share = 0.5
    start: str | None = None
    difficulty: DifficultyConfig = DifficultyConfig()
    adaptive: AdaptiveConfig = AdaptiveConfig()
    markov: MarkovConfig = MarkovConfig()
    own_responses: OwnResponsesConfig = OwnResponsesConfig()
    replay: ReplayConfig = ReplayConfig()

    @model_validator(mode="after")
    def _is_used(self) -> MemoryConfig:
        if self.is_on and not (self.prompts or self.rehearsal or self.replay.share):
            what = f"{self.type} remembers and nothing is practised"
            refuse([("type", f"{what}: set prompts, rehearsal or replay.share above 0, or none")])
        if self.is_on and self.own_responses.share and not self.rehearsal:
            what = f"{self.own_responses.share} of no rehearsed rows"
            refuse([("own_responses.share", f"{what}: set memory.rehearsal above 0, or this to 0")])
        return self

    @property
    def is_on(self) -> bool:
        """Whether anything is remembered."""
        return self.type != "none"

    @property
    def groups_prompts(self) -> bool:
        """Whether it needs the prompts' embeddings."""
        return self.type == "markov" and self.markov.states == "clusters"

    @property
    def options(self) -> dict[str, Any]:
        """The type's own keys."""
        return {} if self.type == "none" else dict(getattr(self, self.type))
