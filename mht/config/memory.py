"""The memory of experience: what the trainer remembers, and how much of each batch it chooses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from mht.core.bounds import Fraction, Positive, Share, Weight
from mht.core.component import Registry, Section, checked_with_members, refuse, registry

OFF = "none"
AtLeastOne = Annotated[float, Field(ge=1)]


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

    Each kind of memory has a section of its own, named after it, with the kind's own options.

    Attributes:
        type: "none" remembers nothing, and all keys below do nothing. "adaptive" practises prompts
            of the training data by difficulty and in growing intervals, "markov" by a chain over
            states of practice. Installed packages add kinds.
        capacity: responses kept; when it is full those to easy prompts go first, of these the most
            practised prompt's, of these the oldest.
        prompts: share of a PPO step's prompts that the memory chooses; the rest are the next of the
            data, in their order.
        rehearsal: share of an SFT batch that the memory chooses.
        start: a memory.parquet of an earlier run to begin with; null begins with nothing.
        difficulty: which rows are easy and which hard.
        own_responses: as SFT targets.
        replay: in the PPO update.
    """

    model_config = ConfigDict(extra="allow")
    registry: ClassVar[Registry] = registry("memory")

    type: str = OFF
    capacity: Positive = 20_000
    prompts: Share = 0.5
    rehearsal: Share = 0.5
    start: str | None = None
    difficulty: DifficultyConfig = DifficultyConfig()
    own_responses: OwnResponsesConfig = OwnResponsesConfig()
    replay: ReplayConfig = ReplayConfig()

    @field_validator("type")
    @classmethod
    def _is_a_kind(cls, name: str) -> str:
        if name != OFF:
            try:
                cls.registry.get(name)
            except KeyError as error:
                text = {"text": f"{error.args[0]}, {OFF}", "at": ()}
                raise PydanticCustomError("component", "{text}", text) from None
        return name

    @model_validator(mode="after")
    def _fits_together(self) -> MemoryConfig:
        if self.is_on and self.__pydantic_extra__ is not None:
            options = self.registry.get(self.type).Options
            self.__pydantic_extra__.setdefault(self.type, options())
        refuse(self._unused())
        return self

    def _unused(self) -> Iterator[tuple[str, str]]:
        if self.is_on and not (self.prompts or self.rehearsal or self.replay.share):
            what = f"{self.type} remembers and nothing is practised"
            yield "type", f"{what}: set prompts, rehearsal or replay.share above 0, or none"
        if self.is_on and self.own_responses.share and not self.rehearsal:
            what = f"{self.own_responses.share} of no rehearsed rows"
            yield "own_responses.share", f"{what}: set memory.rehearsal above 0, or this to 0"

    @classmethod
    def checked(cls, data: Any, handler: Any) -> Any:
        """The kinds' sections are checked as well."""
        return checked_with_members(cls, cls.registry, data, handler)

    @classmethod
    def keys_for(cls, data: Any) -> list[str]:
        """The keys of every memory, and the name of each kind."""
        return sorted([*cls.model_fields, *cls.registry.names()])

    @property
    def is_on(self) -> bool:
        """Whether anything is remembered."""
        return self.type != OFF

    @property
    def groups_prompts(self) -> bool:
        """Whether it needs the prompts' embeddings."""
        return self.is_on and self.registry.get(self.type).needs_embeddings(self.own)

    @property
    def own(self) -> Section:
        """The section of the kind that is on."""
        return getattr(self, self.type)

    @property
    def options(self) -> dict[str, Any]:
        """The type's own keys."""
        return dict(self.own) if self.is_on else {}
