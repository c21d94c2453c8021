"""A weighted mean whose weights are learned while the policy trains: mixture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from mht.core.component import refuse
from mht.core.errors import RewardError
from mht.data.text.sample import Sample
from mht.rewards.base import Positive, Range, State, reward
from mht.rewards.composed.composite import OfComponents
from mht.rewards.node import stored_number
from mht.rewards.scoring import refuse_low, unit


@reward("mixture")
class Mixture(OfComponents):
    """The weighted mean of its components, with weights that a controller changes batch by batch.

    The controller is Hedge (Freund & Schapire 1997, doi:10.1006/jcss.1997.1504), which needs the
    scores of all components in every batch. First ``w *= exp(rate * gain)``, with a gain in [0, 1]
    for each component, made to add up to 1. Then ``w = (1 - share) * w + share / components``, the
    fixed share of Herbster & Warmuth 1998 (doi:10.1023/A:1007424614876). It keeps every component
    alive and lets the weights follow a changing policy. The weights of a batch come from the
    batches before it.

    A component's level is its batch mean on [0, 1], mapped as ``scale`` would map it. With
    ``favours: low`` the gain is 1 - level: Hedge plays against the policy, which is then paid for
    its worst component, as in group DRO (arXiv:1911.08731). The other two use the level's quantile
    among the component's last ``history`` levels: 1 is higher than all of them, and 0.5 stands for
    none. ``improving`` takes the quantile as the gain, ``stalled`` 1 - it. So does DORB
    (arXiv:2011.07635), but Exp3 picks one metric at a time there, and the gain lies between two
    quantiles.

    The weights used for a batch are logged as ``<name>.weight_<component>``.

    Attributes:
        favours: which components gain weight: those with a low level, those that are improving, or
            those that are not.
        rate: how fast weights change: at most by a factor of ``exp(rate)`` a batch.
        share: of all weight that is spread evenly after each batch; a weight never falls below
            ``share / components``.
        history: batches that ``improving`` and ``stalled`` compare with.
    """

    family: ClassVar[str] = "learned"
    needs: ClassVar[str] = "components; their weights are those it starts with"
    uses_weights: ClassVar[bool] = True

    favours: Literal["low", "improving", "stalled"] = "low"
    rate: Annotated[float, Field(gt=0, le=10)] = 0.1
    share: Annotated[float, Field(gt=0, le=1)] = 0.05
    history: Positive = 20

    _weights: dict[str, float] = PrivateAttr(default_factory=dict)
    _levels: dict[str, list[float]] = PrivateAttr(default_factory=dict)
    _seen: dict[str, float] = PrivateAttr(default_factory=dict)  # this batch's, until observed

    @model_validator(mode="after")
    def _can_learn(self) -> Mixture:
        refuse(self._problems())
        in_list = isinstance(self.components, list)
        parts = enumerate(self.children().items())
        refuse_low({f"components{f'[{i}]' if in_list else f'.{n}'}": c for i, (n, c) in parts})
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        for name, child in self.children().items():
            if child.weight <= 0:
                what = f"learning starts from the weights, so each must be above 0: {name}="
                yield "", f"{what}{child.weight:g}"
            if name.startswith("weight_"):
                yield "", f"{name!r} would be mistaken for a weight: rename the component"

    def weights(self) -> dict[str, float]:
        """The weight that each component has now; together 1."""
        start = {name: child.weight for name, child in self.children().items()}
        total = math.fsum(start.values())
        return dict(self._weights) or {name: weight / total for name, weight in start.items()}

    def bounds(self) -> Range:
        """From the lowest end of a component to the highest: any weights may come."""
        lows, highs = zip(*(child.outcome() for child in self.children().values()), strict=True)
        return min(lows), max(highs)

    def combine(self, scores: Sequence[Sequence[float]]) -> list[float]:
        """The weighted mean per sample, with the weights of now."""
        weights = list(self.weights().values())
        return [
            math.fsum(w * s for w, s in zip(weights, row, strict=True))
            for row in zip(*scores, strict=True)
        ]

    def _raw(
        self, samples: list[Sample], name: str, update: bool, below: dict[str, list[float]]
    ) -> list[float]:
        self._seen = {}
        scores = self._scores_below(samples, name, update, below)
        for child, weight in self.weights().items():
            below[f"{name}.weight_{child}"] = [weight] * len(samples)
        levels = map(self._level, self.children(), scores)
        self._seen = dict(zip(self.children(), levels, strict=True))
        return self.combine(scores)

    def _level(self, name: str, scores: Sequence[float]) -> float:
        low, high = self.children()[name].outcome()
        return unit(fmean(scores), low, high) if low < high else 0.5

    def observe(self, samples: Sequence[Sample], scores: Sequence[float]) -> None:
        """One step of Hedge with this batch's gains."""
        if not self._seen:
            return  # the batch failed, and on_error paid for it
        gains = {name: self._gain(name, level) for name, level in self._seen.items()}
        grown = {name: w * math.exp(self.rate * gains[name]) for name, w in self.weights().items()}
        total, even = math.fsum(grown.values()), self.share / len(grown)
        self._weights = {name: (1 - self.share) * w / total + even for name, w in grown.items()}
        for name, level in self._seen.items():
            self._levels[name] = [*self._levels.get(name, []), level][-self.history :]

    def _gain(self, name: str, level: float) -> float:
        if self.favours == "low":
            return 1 - level
        gain = quantile(level, self._levels.get(name, []))
        return gain if self.favours == "improving" else 1 - gain

    def get_state(self) -> State:
        """The weights, and the levels of the last batches."""
        levels = {name: list(self._levels.get(name, [])) for name in self.children()}
        return {"weights": self.weights(), "levels": levels}

    def set_state(self, state: State) -> None:
        """Put the weights and levels back."""
        names = list(self.children())
        what = "mixture has no number for"
        weights = {name: _of(state, "weights", name) for name in names}
        self._weights = {n: stored_number(w, f"{what} {n!r}") for n, w in weights.items()}
        self._levels = {name: list(_of(state, "levels", name)) for name in names}


def quantile(value: float, among: Sequence[float]) -> float:
    """The share of the numbers that lie below the value, equal ones half; 0.5 of none.

    >>> quantile(3.0, [1.0, 2.0, 3.0, 4.0]), quantile(1.0, [])
    (0.625, 0.5)
    """
    points = [1.0 if other < value else 0.5 if other == value else 0.0 for other in among]
    return fmean(points) if points else 0.5


def _of(state: State, key: str, name: str) -> Any:
    try:
        return state[key][name]
    except (KeyError, TypeError):
        raise RewardError(f"the saved state of mixture has no {key} of {name!r}") from None
