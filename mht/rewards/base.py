"""The reward family: one face for all types, checks, the tree of scores, state, TRL's signature."""

from __future__ import annotations

import inspect
import math
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from mht.core.component import Component, Registry, build, refuse, registry
from mht.core.errors import ConfigError, RewardError
from mht.core.keywords import explain_keywords
from mht.core.records import Scored
from mht.data.text.sample import Sample
from mht.rewards import cache, calls, scoring

REWARDS = registry("reward")
POSTPROCESS = registry("postprocess")

Positive = Annotated[int, Field(gt=0)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|(cuda|xpu)(:\d+)?)$")]
State = dict[str, Any]
Example = Mapping[str, Any] | None
Range = tuple[float, float]
ANY: Range = (-math.inf, math.inf)
UNIT: Range = (0.0, 1.0)


class Postprocess(Component):
    """What happens to a component's scores before its parent sees them; the whole batch at once."""

    registry: ClassVar[Registry] = POSTPROCESS

    @abstractmethod
    def apply(self, values: list[float], update: bool) -> list[float]:
        """As many values as came in; ``update=False`` leaves any state as it is."""

    def bounds(self, low: float, high: float) -> Range:
        """The range of what `apply` gives for values in [low, high]."""
        return ANY

    def get_state(self) -> State:
        """What has to survive a resume, as plain JSON-able data; {} for the stateless."""
        return {}

    def set_state(self, state: State) -> None:
        """Put back what `get_state` gave."""


class Reward(Component):
    """A component that gives each sample of a batch one number.

    Attributes:
        weight: its share in a ``weighted_sum``; of no meaning at the top of a tree.
        scale: its range is mapped onto [0, 1]: by a straight line where both ends are finite. From
            a single finite end on it is ``x / (1 + x)``, without one ``1 / (1 + exp(-x))``.
        invert: turned round, after any scaling: ``low + high - score``, or ``-score`` where an end
            of the range is not finite.
        on_error: "stop", or the score of a response whose scoring fails or is not finite. Scale
            and invert leave it alone. Failures are counted as ``<name>.failed``. A missing model or
            package always stops.
        cache: scores of a model are kept in .mht/rewards. A batch that was scored before with the
            same options and model is not scored again. Only for types with a model.
        postprocess: applied to its scores in this order, after scale and invert.
        family: what kind of reward it is, for the documentation.
        needs: what has to be there for it, for the documentation.
        score_range: the ends of what `score` gives, where no option changes them.
        range_note: what options change about the range or the direction.
        better: whether a high or a low score is the good one, or "either".
        example: options with which a spec of the type loads anywhere; None where it takes
            something that only its user has, such as a file.
    """

    registry: ClassVar[Registry] = REWARDS
    type_name: ClassVar[str] = ""
    family: ClassVar[str] = "yours"
    needs: ClassVar[str] = ""
    score_range: ClassVar[Range] = ANY
    range_note: ClassVar[str] = ""
    better: ClassVar[Literal["high", "low", "either"]] = "high"
    example: ClassVar[Example] = {}

    weight: float = 1.0
    scale: bool = False
    invert: bool = False
    on_error: Literal["stop"] | float = "stop"
    cache: bool = False
    postprocess: list[Postprocess] = Field(default_factory=list)
    _warned: set[str] = PrivateAttr(default_factory=set)

    @model_validator(mode="after")
    def _has_something_to_cache(self) -> Reward:
        if self.cache and (not self.models() or self.reads(Sample("", "")) is None):
            refuse([("cache", "is only for types whose scores a model makes from texts alone")])
        return self

    @classmethod
    def own_options(cls) -> list[str]:
        """The options of the type itself: those that decide what `score` gives."""
        below = cls.__mro__[: cls.__mro__.index(Reward)]
        own = {name for part in below for name in inspect.get_annotations(part)}
        return [name for name in cls.model_fields if name in own]

    @abstractmethod
    def score(self, samples: Sequence[Sample]) -> list[float]:
        """One finite number per sample, in their order, as the type defines it."""

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """The texts that alone decide this sample's score; equal texts are scored once.

        None where the rest of the batch, the item or a state decides too.
        """
        return None

    def models(self) -> tuple[str, ...]:
        """The folders and hub names of the models whose content decides the scores."""
        return ()

    def bounds(self) -> Range:
        """The ends of what `score` gives with these options."""
        return self.score_range

    def direction(self) -> Literal["high", "low", "either"]:
        """Which of `score`'s numbers are the good ones, with these options."""
        return self.better

    def outcome(self) -> Range:
        """The ends of what a parent sees: after scale, invert and postprocess."""
        low, high = scoring.comparable_bounds(self)
        for step in self.postprocess:
            low, high = step.bounds(low, high)
        return low, high

    def children(self) -> dict[str, Reward]:
        """The components below this one by name; {} for all but composites."""
        return {}

    def observe(self, samples: Sequence[Sample], scores: Sequence[float]) -> None:
        """Take a scored batch into the reward's state; not called with ``update=False``."""

    def get_state(self) -> State:
        """A reward's own state, without its postprocess and children."""
        return {}

    def set_state(self, state: State) -> None:
        """Put back what `get_state` gave."""

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

    def state_dict(self) -> State:
        """The tree's whole state, JSON-able: path in the tree to the state found there."""
        return {path: state for path, part in self._parts() if (state := part.get_state())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            RewardError: the state is of another tree; the message has the difference.
        """
        parts = dict(self._parts())
        mine = {path for path, part in parts.items() if part.get_state()}
        if mine != set(state):
            raise RewardError(
                "the saved reward state does not fit this reward: "
                f"missing {sorted(mine - set(state))}, unknown {sorted(set(state) - mine)}"
            )
        for path, value in state.items():
            parts[path].set_state(value)

    def _parts(self, path: str = "") -> Iterator[tuple[str, Reward | Postprocess]]:
        yield path or ".", self
        for i, step in enumerate(self.postprocess):
            yield f"{path}.postprocess[{i}]".lstrip("."), step
        for name, child in self.children().items():
            yield from child._parts(f"{path}.{name}".lstrip("."))


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


def postprocess(*names: str) -> Any:
    """Decorate a `Postprocess` with its ``type:`` name and aliases."""
    return POSTPROCESS.register(*names)


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
