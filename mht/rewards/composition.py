"""Rewards made of rewards: weighted_sum, product, min, gate."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import PlainValidator, TypeAdapter, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from mht.rewards.base import Example, Range, Reward, reward
from mht.types import Sample

_LIST = TypeAdapter(list[Reward])
_MAPPING = TypeAdapter(dict[str, Reward])
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ -]*")


def _components(data: Any) -> list[Reward] | dict[str, Reward]:
    """A list of rewards, or a mapping of name to reward; never empty."""
    if not isinstance(data, list | Mapping):
        raise ValueError("should be a list of rewards, or a mapping of name to reward")
    if not data:
        raise ValueError("needs at least one component")
    if isinstance(data, list):
        return _LIST.validate_python(data)
    problems = [_bad_name(key) for key in data if not _good_name(key)]
    try:
        children = _MAPPING.validate_python({str(key): value for key, value in data.items()})
    except ValidationError as error:
        problems += [_again(e) for e in error.errors(include_url=False)]
    if problems:
        raise ValidationError.from_exception_data("components", problems)
    return children


def _good_name(key: Any) -> bool:
    return isinstance(key, str) and bool(_NAME.fullmatch(key)) and key not in ("post", "failed")


def _bad_name(key: Any) -> InitErrorDetails:
    text = (
        f"{key!r} can't name a component: use letters, digits, _ and - (it becomes part of a "
        "metric's name), and neither 'post' nor 'failed'"
    )
    problem = PydanticCustomError("component", "{text}", {"text": text, "at": ()})
    return InitErrorDetails(type=problem, loc=(str(key),), input=key)


def _again(error: Any) -> InitErrorDetails:
    """A problem inside a component, to be reported together with the bad names."""
    template = {"component": "{text}", "nested": "{cls} is wrong"}.get(error["type"])
    if template is None:  # what a validator of the component itself says
        context = {"text": error["msg"].removeprefix("Value error, "), "at": ()}
        problem = PydanticCustomError("component", "{text}", context)
    else:
        problem = PydanticCustomError(error["type"], template, error["ctx"])
    return InitErrorDetails(type=problem, loc=error["loc"], input=error["input"])


Components = Annotated[list[Reward] | dict[str, Reward], PlainValidator(_components)]


class Composite(Reward):
    """A reward computed from the postprocessed scores of the rewards below it."""

    family: ClassVar[str] = "composition"
    range_note: ClassVar[str] = "from its components' ranges"

    @abstractmethod
    def combine(self, scores: Sequence[Sequence[float]]) -> list[float]:
        """One number per sample from the children's scores, in the order of `children`."""

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The combined scores, before this node's own postprocess."""
        return self._raw(list(samples), "reward", True, {})

    def _raw(
        self, samples: list[Sample], name: str, update: bool, below: dict[str, list[float]]
    ) -> list[float]:
        scores = []
        for child_name, child in self.children().items():
            scored = child.evaluate(samples, f"{name}.{child_name}", update=update)
            scores.append(scored.score)
            below.update(scored.components)
        return self.combine(scores)


class _OfComponents(Composite):
    uses_weights: ClassVar[bool] = False
    example: ClassVar[Example] = {
        "components": {
            "match": {"type": "rouge_l"},
            "length": {"type": "length_window", "min": 4, "max": 12},
        }
    }

    components: Components

    def children(self) -> dict[str, Reward]:
        """The components by name; in a list, a type that comes again is ``<type>_2``, ``_3``..."""
        if isinstance(self.components, dict):
            return dict(self.components)
        named: dict[str, Reward] = {}
        for child in self.components:
            name, n = child.__name__, 1
            while name in named:
                n += 1
                name = f"{child.__name__}_{n}"
            named[name] = child
        return named

    @model_validator(mode="after")
    def _weights_mean_something(self) -> _OfComponents:
        weights = {name: child.weight for name, child in self.children().items()}
        idle = [name for name, weight in weights.items() if weight != 1]
        if idle and not self.uses_weights:
            raise ValueError(
                f"a weight has no effect here: remove it from {', '.join(idle)} "
                "(postprocess: [{type: scale}] changes a component's size)"
            )
        if self.uses_weights and not sum(weights.values()) > 0:
            raise ValueError(
                f"the weights must add up to more than 0, got {sum(weights.values()):g} from "
                + ", ".join(f"{name}={weight:g}" for name, weight in weights.items())
            )
        return self


@reward("weighted_sum")
class WeightedSum(_OfComponents):
    """``sum(weight * score) / sum(weight)``: the weighted mean of its components.

    A weight of 0 scores and logs a component without rewarding it; a negative one is a penalty.
    """

    uses_weights: ClassVar[bool] = True

    def combine(self, scores: Sequence[Sequence[float]]) -> list[float]:
        """The weighted mean per sample."""
        weights = [child.weight for child in self.children().values()]
        total = sum(weights)
        return [
            math.fsum(w * s for w, s in zip(weights, row, strict=True)) / total
            for row in zip(*scores, strict=True)
        ]

    def bounds(self) -> Range:
        """The weighted means of the components' ends."""
        children = [child for child in self.children().values() if child.weight]
        total = sum(child.weight for child in children)
        ends = [[end * c.weight / total for end in c.outcome()] for c in children]
        return sum(min(pair) for pair in ends), sum(max(pair) for pair in ends)


@reward("product")
class Product(_OfComponents):
    """The product of its components: with scores in [0, 1], each must be good."""

    def combine(self, scores: Sequence[Sequence[float]]) -> list[float]:
        """The product per sample."""
        return [math.prod(row) for row in zip(*scores, strict=True)]

    def bounds(self) -> Range:
        """The products of the components' ends."""
        low, high = 1.0, 1.0
        for child in self.children().values():
            corners = [a * b if a and b else 0.0 for a in (low, high) for b in child.outcome()]
            low, high = min(corners), max(corners)
        return low, high


@reward("min")
class Min(_OfComponents):
    """The smallest of its components: the worst one decides."""

    def combine(self, scores: Sequence[Sequence[float]]) -> list[float]:
        """The minimum per sample."""
        return [min(row) for row in zip(*scores, strict=True)]

    def bounds(self) -> Range:
        """The smallest of the components' lower and of their upper ends."""
        lows, highs = zip(*(child.outcome() for child in self.children().values()), strict=True)
        return min(lows), min(highs)


@reward("gate")
class Gate(Composite):
    """A reward that counts only where another one reaches a threshold.

    Attributes:
        reward: what is paid.
        when: what has to be reached.
        threshold: the gate is open where ``when >= threshold``.
        otherwise: what is paid where it is closed.
    """

    example: ClassVar[Example] = {
        "reward": {"type": "rouge_l"},
        "when": {"type": "length_window", "min": 4, "max": 12},
        "threshold": 0.5,
    }

    reward: Reward
    when: Reward
    threshold: float
    otherwise: float = 0.0

    def children(self) -> dict[str, Reward]:
        """``reward`` and ``when``."""
        return {"reward": self.reward, "when": self.when}

    def combine(self, scores: Sequence[Sequence[float]]) -> list[float]:
        """The paid reward per sample."""
        paid, reached = scores
        return [
            value if level >= self.threshold else self.otherwise
            for value, level in zip(paid, reached, strict=True)
        ]

    def bounds(self) -> Range:
        """The paid reward's range, with ``otherwise`` in it."""
        low, high = self.reward.outcome()
        return min(low, self.otherwise), max(high, self.otherwise)
