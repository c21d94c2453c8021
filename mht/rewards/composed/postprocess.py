"""What may be done to a component's scores: clip, scale, ema_normalize, whiten."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Annotated

from pydantic import Field, PrivateAttr, model_validator

from mht.rewards.base import Postprocess, Range, State, postprocess
from mht.rewards.node import stored_number

Epsilon = Annotated[float, Field(gt=0)]


@postprocess("clip")
class Clip(Postprocess):
    """Values limited to [min, max]; a bound that is left out does not limit."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Clip:
        if self.min is None and self.max is None:
            raise ValueError("clip needs a min, a max or both")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"min must be below max, got min={self.min} max={self.max}")
        return self

    def apply(self, values: list[float], update: bool) -> list[float]:
        """Each value, limited."""
        low = -math.inf if self.min is None else self.min
        high = math.inf if self.max is None else self.max
        return [min(max(value, low), high) for value in values]

    def bounds(self, low: float, high: float) -> Range:
        """The range, cut."""
        floor = -math.inf if self.min is None else self.min
        ceiling = math.inf if self.max is None else self.max
        return min(max(low, floor), ceiling), min(max(high, floor), ceiling)


@postprocess("scale")
class Scale(Postprocess):
    """``mul * value + add``."""

    mul: float = 1.0
    add: float = 0.0

    def apply(self, values: list[float], update: bool) -> list[float]:
        """Each value, scaled."""
        return [self.mul * value + self.add for value in values]

    def bounds(self, low: float, high: float) -> Range:
        """The range, scaled."""
        if not self.mul:
            return self.add, self.add
        ends = self.mul * low + self.add, self.mul * high + self.add
        return min(ends), max(ends)


@postprocess("whiten")
class Whiten(Postprocess):
    """Mean 0 and standard deviation 1 within the batch; a constant batch gives zeros."""

    eps: Epsilon = 1e-8

    def apply(self, values: list[float], update: bool) -> list[float]:
        """``(value - mean) / (std + eps)`` with the population's std."""
        mean, variance = _moments(values)
        return [(value - mean) / (math.sqrt(variance) + self.eps) for value in values]


@postprocess("ema_normalize")
class EmaNormalize(Postprocess):
    """``(value - mean) / (std + eps)`` with mean and std as moving averages over batches.

    The averages take in a batch once, before it is normalised, and do not depend on its order.
    They start without a bias towards 0: batch t enters with weight (1 - decay) / (1 - decay^t),
    the correction of Adam (arXiv:1412.6980). Until a first batch has been taken in, values pass
    unchanged.

    Attributes:
        decay: near 1 forgets slowly.
        eps: keeps a constant reward finite.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    eps: Epsilon = 1e-8

    _mean: float = PrivateAttr(0.0)
    _variance: float = PrivateAttr(0.0)
    _batches: int = PrivateAttr(0)

    def apply(self, values: list[float], update: bool) -> list[float]:
        """Take the batch in (where ``update``), then normalise it."""
        if update:
            self._take_in(values)
        if not self._batches:
            return list(values)
        std = math.sqrt(self._variance)
        return [(value - self._mean) / (std + self.eps) for value in values]

    def _take_in(self, values: list[float]) -> None:
        mean, variance = _moments(values)
        self._batches += 1
        new = (1 - self.decay) / (1 - self.decay**self._batches)
        shift = mean - self._mean  # variance of a mixture: within, plus between the two means
        self._variance = (1 - new) * self._variance + new * variance + new * (1 - new) * shift**2
        self._mean += new * shift

    def get_state(self) -> State:
        """The moving averages and how many batches they hold."""
        return {"mean": self._mean, "variance": self._variance, "batches": self._batches}

    def set_state(self, state: State) -> None:
        """Put the moving averages back."""
        self._mean = _number(state, "mean")
        self._variance = _number(state, "variance")
        self._batches = int(_number(state, "batches"))


def _moments(values: list[float]) -> tuple[float, float]:
    """Mean and population variance, exact sums: the order of the values changes nothing."""
    mean = fmean(values)
    return mean, fmean((value - mean) ** 2 for value in values)


def _number(state: State, key: str) -> float:
    return stored_number(state.get(key), f"ema_normalize has no number {key!r}")
