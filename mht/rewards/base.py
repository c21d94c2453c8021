"""The reward family: one face for all types, checks, the tree of scores, TRL's signature."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import PrivateAttr

from mht.core.component import Registry, build, registry
from mht.core.errors import ConfigError
from mht.core.keywords import explain_keywords
from mht.core.records import Scored
from mht.data.text.sample import Sample
from mht.rewards import cache, calls, scoring
from mht.rewards.node import (
    ANY,
    POSTPROCESS,
    UNIT,
    Device,
    Example,
    Node,
    Positive,
    Postprocess,
    Range,
    State,
)

__all__ = [
    "ANY",
    "POSTPROCESS",
    "REWARDS",
    "UNIT",
    "Device",
    "Example",
    "Positive",
    "Postprocess",
    "Range",
    "Reward",
    "State",
    "TargetReward",
    "TextReward",
    "make_reward",
    "postprocess",
    "reward",
]

REWARDS = registry("reward")


class Reward(Node):
    """A component that gives each sample of a batch one number."""

    registry: ClassVar[Registry] = REWARDS
    _warned: set[str] = PrivateAttr(default_factory=set)

    def outcome(self) -> Range:
        """The ends of what a parent sees: after scale, invert and postprocess."""
        low, high = scoring.comparable_bounds(self)
        for step in self.postprocess:
            low, high = step.bounds(low, high)
        return low, high

    def evaluate(
        self, samples: Sequence[Sample], name: str = "reward", *, update: bool = True
    ) -> Scored:
        """Score a batch with every node of the tree.

        Args:
            samples: the batch.
            name: the root's name; a child is ``<name>.<child>``.
            update: False leaves the state of ema_normalize and the like as it is, for evaluation.

        Returns:
            The root's final scores, and for every node its raw scores under its name. With scale,
            invert or a postprocess, the scores after them stand under ``<name>.post``. With an
            ``on_error``, ``<name>.failed`` has 1.0 for each failure.

        Raises:
            RewardError: a component gave NaN, infinity or the wrong number of scores.
        """
        samples = list(samples)
        if not samples:
            return Scored([], {})
        below: dict[str, list[float]] = {}
        scorer = scoring.Scorer(self, self._label(name))
        raw, failed = scorer.scores(samples, lambda part: self._raw(part, name, update, below))
        if update:
            self.observe(samples, raw)
        values, components = raw, {name: raw, **below}
        if scoring.made_comparable(self):
            values = components[f"{name}.post"] = scoring.comparable(self, raw, failed)
        for i, step in enumerate(self.postprocess):
            label = f"{name}.postprocess[{i}] ({step.type})"
            values = scoring.checked(step.apply(values, update), samples, label)
            components[f"{name}.post"] = values
        if self.on_error != "stop":
            components[f"{name}.failed"] = failed
        return Scored(list(values), components)

    def _raw(
        self, samples: list[Sample], name: str, update: bool, below: dict[str, list[float]]
    ) -> list[float]:
        with scoring.named(self._label(name)):
            return cache.scores(self, samples) if self.cache else self.score(samples)

    def warn_once(self, what: str) -> None:
        """Warn of something that will be so for batch after batch; only the first time."""
        if what not in self._warned:
            self._warned.add(what)
            warnings.warn(f"{self.__name__}: {what}", stacklevel=3)

    def _label(self, name: str) -> str:
        return f"{name} ({self.type or self.type_name or type(self).__name__})"

    def __call__(
        self,
        response: Any = None,
        target: Any = "",
        prompt: Any = "",
        item: Any = None,
        *,
        prompts: Any = None,
        completions: Any = None,
        **columns: Any,
    ) -> Any:
        """One float for one text, a list for a list; also TRL's ``reward_funcs`` signature.

        Args:
            response: a text, a chat (list of messages), or a list of either.
            target: one for all, or one each.
            prompt: one for all, or one each.
            item: the data row, one for all, or one each.
            prompts: TRL's prompts, texts or chats.
            completions: TRL's completions, texts or chats; their assistant turns are the response.
            **columns: TRL's data columns; lists of the batch's length make up each row's ``item``,
                and ``target`` is taken from the column of that name.
        """
        if completions is not None:
            samples = calls.samples_of_trl(prompts, completions, {"target": target, **columns})
            return self.evaluate(samples).score
        if response is None or prompts is not None or columns:
            unknown = sorted([*columns, *(["prompts"] if prompts is not None else [])])
            raise TypeError(f"a reward needs a response, or completions; got {unknown}")
        samples, single = calls.samples_of_call(response, target, prompt, item)
        scores = self.evaluate(samples).score
        return scores[0] if single else scores

    @property
    def __name__(self) -> str:
        """The type's name: TRL logs a reward function under it."""
        return self.type or self.type_name or type(self).__qualname__


class TextReward(Reward):
    """A reward of one text.

    Attributes:
        text: "response", or "full" for the prompt followed by the response.
    """

    text: Literal["response", "full"] = "response"

    def texts(self, samples: Sequence[Sample]) -> list[str]:
        """The text of each sample that `text` asks for."""
        return [s.full if self.text == "full" else s.response for s in samples]

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """The one text."""
        return tuple(self.texts([sample]))


class TargetReward(Reward):
    """A reward that compares the response with the target."""

    family: ClassVar[str] = "match"
    needs: ClassVar[str] = "a target"
    score_range: ClassVar[Range] = UNIT

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """Response and target."""
        return sample.response, sample.target

    def pairs(self, samples: Sequence[Sample]) -> list[tuple[str, str]]:
        """(response, target) of each sample; warns when not one of them has a target."""
        if not any(s.target for s in samples):
            warnings.warn(
                f"{self.__name__} compares with targets, but no sample of this batch has one",
                stacklevel=2,
            )
        return [(s.response, s.target) for s in samples]


def reward(*names: str) -> Any:
    """Decorate a `Reward` with its ``type:`` name and aliases."""

    def add(cls: type[Reward]) -> type[Reward]:
        cls.type_name = names[0]
        return REWARDS.register(*names)(cls)

    return add


postprocess = POSTPROCESS.register  # decorates a `Postprocess` with its ``type:`` name and aliases


@explain_keywords("make_reward", spec="config reward reward_config reward_spec")
def make_reward(spec: Any, path: str = "reward") -> Reward:
    """Build a reward from plain data, as YAML or JSON gives it.

    Args:
        spec: a mapping with a ``type``, or ``{"REWARD": {...}}``; a reward is returned as it is.
        path: where ``spec`` stands, for the errors.

    Raises:
        ConfigError: with every mistake in it and its path.

    Example:
        >>> make_reward({"type": "exact_match"})("Paris", "paris")
        0.0
        >>> make_reward({"type": "exact_match", "lowercase": True})(["Paris", "Rome"], "paris")
        [1.0, 0.0]
    """
    if isinstance(spec, Mapping) and "REWARD" in spec:
        extra = sorted(str(key) for key in spec if key != "REWARD")
        if extra:
            raise ConfigError([f"{path}: nothing else may stand beside REWARD, got {extra}"])
        spec, path = spec["REWARD"], f"{path}.REWARD"
    return build(Reward, spec, path=path, source="the reward")  # type: ignore[type-abstract]
