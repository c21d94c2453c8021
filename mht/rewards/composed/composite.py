"""What rewards made of rewards share: their components, checked and named, scored as a tree."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import PlainValidator, TypeAdapter, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from mht.core.errors import shown
from mht.data.text.sample import Sample
from mht.rewards.base import Example, Reward

_LIST = TypeAdapter(list[Reward])
_MAPPING = TypeAdapter(dict[str, Reward])
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ -]{,99}")


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
        f"{shown(key)} can't name a component: use letters, digits, _ and - (it becomes part of a "
        "metric's name), 100 at most, and neither 'post' nor 'failed'"
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
        """The combined scores, before this node's own postprocess; no state changes."""
        return self._raw(list(samples), "reward", False, {})

    def _raw(
        self, samples: list[Sample], name: str, update: bool, below: dict[str, list[float]]
    ) -> list[float]:
        return self.combine(self._scores_below(samples, name, update, below))

    def _scores_below(
        self, samples: list[Sample], name: str, update: bool, below: dict[str, list[float]]
    ) -> list[list[float]]:
        """Each child's final scores; all that it and those below it say goes to ``below``."""
        scores = []
        for child_name, child in self.children().items():
            scored = child.evaluate(samples, f"{name}.{child_name}", update=update)
            scores.append(scored.score)
            below.update(scored.components)
        return scores


class OfComponents(Composite):
    """A composite of any number of components.

    Attributes:
        components: a mapping of name to component, or a list.
        uses_weights: whether the components' weights mean something in it.
    """

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
    def _weights_mean_something(self) -> OfComponents:
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
