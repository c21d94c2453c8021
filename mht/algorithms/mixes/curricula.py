"""Curricula: the phases move from those of a first cycle to those of the last."""

from __future__ import annotations

import math
from abc import abstractmethod

from mht.algorithms.mixes.base import Mix, mix
from mht.config.cycles import Cycle, Phase
from mht.core.bounds import NonNegative


class Curriculum(Mix):
    """The steps of each phase move from the first cycle's number to the last one's.

    Attributes:
        first: by algorithm, the steps of its phases in the first cycle; those left out have there
            what they have in the last.
    """

    first: dict[str, NonNegative]

    @abstractmethod
    def way(self, share: float) -> float:
        """How far the numbers have moved, in [0, 1], where this share of the cycles is over."""

    def plan(self, cycle: Cycle, cycles: int) -> list[Cycle]:
        """See `Mix.plan`."""
        ways = [self.way(number / max(cycles - 1, 1)) for number in range(cycles)]
        return [tuple(self._moved(phase, way) for phase in cycle) for way in ways]

    def _moved(self, phase: Phase, way: float) -> Phase:
        name, last = phase
        first = self.first.get(name, last)
        return name, math.floor(first + (last - first) * way + 0.5)


@mix("linear")
class Linear(Curriculum):
    """Along a straight line."""

    type: str = "linear"

    def way(self, share: float) -> float:
        """See `Curriculum.way`."""
        return share


@mix("cosine")
class Cosine(Curriculum):
    """Along half a cosine: slowly at both ends."""

    type: str = "cosine"

    def way(self, share: float) -> float:
        """See `Curriculum.way`."""
        return (1 - math.cos(math.pi * share)) / 2


@mix("step")
class Step(Curriculum):
    """At once, half-way."""

    type: str = "step"

    def way(self, share: float) -> float:
        """See `Curriculum.way`."""
        return float(share >= 0.5)
