"""The section of the memory: its kind, its size, and its share of each batch."""

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
    """How remembered prompts are ranked and divided into easy, medium and hard.

    Attributes:
        easy: the share of the easiest prompts that are in the class easy.
        hard: the share of the hardest prompts that are in the class hard; the others are medium.
            Equal prompts share a place, so ties may change both shares.
        score_weight: of the place by score, relative to 1 for the place by loss; 0 ignores scores.
        newest: the weight of the newest score or loss in the prompt's running mean; 1 keeps only
            the newest.
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
        share: of the rehearsed rows of an SFT batch, rounded. In these a remembered response that
            ended by EOS replaces the data's target.
        min_quantile: the quantile of all remembered scores that a prompt's best response must reach
            to become a target. It may also be above the mean of its prompt's responses, if there
            are ``1 / (1 - min_quantile)`` or more.
    """

    share: Share = 0.0
    min_quantile: Share = 0.9


class ReplayConfig(Section):
    """Past responses in the PPO update.

    Attributes:
        share: each minibatch has ``share * minibatch_size`` past responses, rounded, beside its
            fresh ones. The number of optimiser steps stays the same, and each has more rows. 0
            turns replay off. The first step has nothing to replay.
        staleness: maximum age of a replayed response, in PPO steps.
        max_weight: upper limit of the importance weights; with 1 no token counts more than a fresh
            one.
    """

    share: Share = 0.0
    staleness: Positive = 4
    max_weight: AtLeastOne = 2.0


class MemoryConfig(Section):
    """Which attempts the trainer remembers, and which prompts it practises again.

    Each kind of memory has a section with its own options, named after the kind.

    Attributes:
        type: "none" turns the memory off, and all keys below have no effect. With "adaptive" it
            practises prompts by difficulty and in growing intervals, with "markov" by a Markov
            chain over states of practice. Installed packages add kinds.
        capacity: maximum number of stored responses. Responses to easy prompts are deleted first,
            among these those of the most practised prompt, among these the oldest.
        prompts: share of a PPO step's prompts that the memory chooses; the rest follow the order of
            the data.
        rehearsal: share of an SFT batch that the memory chooses.
        start: the memory.parquet of an earlier run to begin with; null begins empty.
        difficulty: the classes easy, medium and hard.
        own_responses: the policy's best responses as SFT targets.
        replay: past responses in the PPO update.
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
            what = f"{self.type} remembers attempts, but practises nothing"
            yield "type", f"{what}: set prompts, rehearsal or replay.share above 0, or none"
        if self.is_on and self.own_responses.share and not self.rehearsal:
            what = f"{self.own_responses.share} of rehearsed rows, but there are none"
            yield "own_responses.share", f"{what}: set memory.rehearsal above 0, or this to 0"

    @classmethod
    def checked(cls, data: Any, handler: Any) -> Any:
        """The section, with the sections of the kinds checked as well."""
        return checked_with_members(cls, cls.registry, data, handler)

    @classmethod
    def keys_for(cls, data: Any) -> list[str]:
        """The keys of every memory, and the name of each kind."""
        return sorted([*cls.model_fields, *cls.registry.names()])

    @property
    def is_on(self) -> bool:
        """Whether the trainer has a memory."""
        return self.type != OFF

    @property
    def groups_prompts(self) -> bool:
        """Whether the memory needs the prompts' embeddings."""
        return self.is_on and self.registry.get(self.type).needs_embeddings(self.own)

    @property
    def own(self) -> Section:
        """The section of the chosen kind."""
        return getattr(self, self.type)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the chosen kind; empty without a memory."""
        return dict(self.own) if self.is_on else {}
