"""How the mix of SFT and PPO changes from the first cycle to the last."""

from __future__ import annotations

import math
from typing import Literal

from mht.core.bounds import NonNegative
from mht.core.component import Section


class CurriculumConfig(Section):
    """How the mix of SFT and PPO changes over the cycles.

    Attributes:
        type: "none": every cycle alike. Otherwise the first cycle has ``sft_steps`` and
            ``ppo_steps``, the last one ``sft_steps_per_cycle`` and ``ppo_steps_per_cycle``, and
            those between follow a straight line, a half cosine, or change at once half-way (step).
        sft_steps: in the first cycle.
        ppo_steps: in the first cycle.
    """

    type: Literal["none", "linear", "cosine", "step"] = "none"
    sft_steps: NonNegative = 0
    ppo_steps: NonNegative = 0

    def steps(self, last: tuple[int, int], cycle: int, cycles: int) -> tuple[int, int]:
        """SFT and PPO steps of one of the cycles, counted from 0."""
        if self.type == "none":
            return last
        way = cycle / max(cycles - 1, 1)
        done = {
            "linear": way,
            "cosine": (1 - math.cos(math.pi * way)) / 2,
            "step": float(way >= 0.5),
        }[self.type]
        sft, ppo = (
            math.floor(a + (b - a) * done + 0.5)
            for a, b in zip((self.sft_steps, self.ppo_steps), last, strict=True)
        )
        return sft, ppo
