"""What a training run does one after the other: the steps of each cycle, and the cycles' ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Phase = Literal["sft", "ppo"]
Plan = Sequence[tuple[int, int]]  # for each cycle: SFT steps, PPO steps


def schedule(plan: Plan) -> list[tuple[Phase | Literal["end"], int]]:
    """Every part of a run in order: the steps, and the end of each cycle; cycle 0 has no steps.

    >>> schedule([(1, 2)])
    [('end', 0), ('sft', 1), ('ppo', 1), ('ppo', 1), ('end', 1)]
    """
    parts: list[tuple[Phase | Literal["end"], int]] = [("end", 0)]
    for cycle, (sft_steps, ppo_steps) in enumerate(plan, 1):
        parts += [("sft", cycle)] * sft_steps
        parts += [("ppo", cycle)] * ppo_steps
        parts.append(("end", cycle))
    return parts
