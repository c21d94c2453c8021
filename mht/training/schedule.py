"""The order of a training run: the steps of each cycle, and the cycles' ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mht.config.cycles import Cycle, Phase, Plan
from mht.core.errors import UserError


class Part(NamedTuple):
    """One step of a phase, or the end of a cycle.

    Attributes:
        cycle: its number from 1 on; 0 has no steps.
        phase: the algorithm's name; None is the end of the cycle.
    """

    cycle: int
    phase: str | None = None

    @property
    def is_step(self) -> bool:
        """Whether it is a step of a phase."""
        return self.phase is not None


def schedule(plan: Plan) -> list[Part]:
    """Every part of a run in order.

    >>> parts = schedule([(("sft", 1), ("ppo", 2))])
    >>> [(part.cycle, part.phase) for part in parts]
    [(0, None), (1, 'sft'), (1, 'ppo'), (1, 'ppo'), (1, None)]
    """
    parts = [Part(0)]
    for number, cycle in enumerate(plan, 1):
        for name, steps in cycle:
            parts += [Part(number, name)] * steps
        parts.append(Part(number))
    return parts


def as_plan(given: Sequence[Any]) -> Plan:
    """A plan from one in any form that a user may write.

    Args:
        given: for each cycle its phases, as mappings or pairs of an algorithm and its steps. Two
            numbers are the SFT steps and the PPO steps.

    >>> as_plan([(2, 1), [{"sft": 3}, ("ppo", 4)]])
    [(('sft', 2), ('ppo', 1)), (('sft', 3), ('ppo', 4))]

    Raises:
        UserError: a cycle is neither.
    """
    return [_cycle(cycle) for cycle in given]


def _cycle(given: Any) -> Cycle:
    try:
        if all(isinstance(part, int) for part in given):
            sft, ppo = given
            return ("sft", sft), ("ppo", ppo)
        return tuple(phase for part in given for phase in _phases(part))
    except (TypeError, ValueError):
        raise UserError(
            "plan: a cycle is its SFT and PPO steps, as in (6, 1), or a list of phases, as in "
            f'[{{"sft": 6}}, {{"ppo": 1}}], got {given!r:.80}'
        ) from None


def _phases(given: Any) -> list[Phase]:
    pairs = given.items() if isinstance(given, Mapping) else [given]
    return [(str(name), int(steps)) for name, steps in pairs]
