"""Rewards made of rewards: weighted_sum, product, min, gate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from mht.rewards.base import Example, Range, Reward, reward
from mht.rewards.composed.composite import Composite, OfComponents


@reward("weighted_sum")
class WeightedSum(OfComponents):
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
class Product(OfComponents):
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
class Min(OfComponents):
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
