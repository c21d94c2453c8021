"""The part of a reward that each type decides: options, texts read, range, state."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mht.core.component import Component, Registry, refuse, registry
from mht.core.errors import RewardError
from mht.data.text.sample import Sample

POSTPROCESS = registry("postprocess")

Positive = Annotated[int, Field(gt=0)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|(cuda|xpu)(:\d+)?)$")]
State = dict[str, Any]
Example = Mapping[str, Any] | None
Range = tuple[float, float]
ANY: Range = (-math.inf, math.inf)
UNIT: Range = (0.0, 1.0)


def stored_number(value: Any, what: str) -> float:
    """A number of a saved state.

    Raises:
        RewardError: it is none; ``what`` says whose state lacks it.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RewardError(f"the saved state of {what}: got {value!r}")
    return value


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


class Node(Component):
    """The options and methods that each type of reward has of its own; `Reward` scores with them.

    Attributes:
        weight: its share in a ``weighted_sum``; without effect at the top of a tree.
        scale: its range is mapped onto [0, 1]: by a straight line where both ends are finite. From
            a single finite end on it is ``x / (1 + x)``, without one ``1 / (1 + exp(-x))``.
        invert: its direction is reversed, after any scaling: ``low + high - score``, or ``-score``
            where an end of the range is not finite.
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

    @model_validator(mode="after")
    def _has_something_to_cache(self) -> Node:
        if self.cache and (not self.models() or self.reads(Sample("", "")) is None):
            refuse([("cache", "is only for types whose scores a model makes from texts alone")])
        return self

    @classmethod
    def own_options(cls) -> list[str]:
        """The options of the type itself: those that decide what `score` gives."""
        below = cls.__mro__[: cls.__mro__.index(Node)]
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

    def children(self) -> dict[str, Any]:
        """The rewards below this one by name; {} for all but composites."""
        return {}

    def observe(self, samples: Sequence[Sample], scores: Sequence[float]) -> None:
        """Take a scored batch into the reward's state; not called with ``update=False``."""

    def get_state(self) -> State:
        """A reward's own state, without its postprocess and children."""
        return {}

    def set_state(self, state: State) -> None:
        """Put back what `get_state` gave."""

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

    def _parts(self, path: str = "") -> Iterator[tuple[str, Node | Postprocess]]:
        yield path or ".", self
        for i, step in enumerate(self.postprocess):
            yield f"{path}.postprocess[{i}]".lstrip("."), step
        for name, child in self.children().items():
            yield from child._parts(f"{path}.{name}".lstrip("."))
