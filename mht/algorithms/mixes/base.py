"""What a mix is: the phases of each cycle, the weights of prompts, and the hints that they get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mht.config.cycles import Cycle
from mht.core.component import Component, Registry, registry

MIXES = registry("mix")
mix = MIXES.register


@dataclass(frozen=True)
class Moment:
    """When a step is made.

    Attributes:
        phase: the algorithm's name.
        step: steps of all phases made before.
        steps: of the whole run.
    """

    phase: str
    step: int
    steps: int

    @property
    def share(self) -> float:
        """The part of the run that is over, in [0, 1]."""
        return min(self.step / max(self.steps, 1), 1.0)


@dataclass(frozen=True)
class Prompts:
    """The records of the memory (``ppo.memory``) of a batch's prompts: B numbers each.

    A number is NaN where the memory has no record, and everywhere without a memory.

    Attributes:
        rows: numbers of the training data's rows.
        mean_score: running mean of the reward's scores of responses without a hint.
        sft_loss: running mean of the target's nats per token.
        practised: how often each was practised.
    """

    rows: Sequence[int]
    mean_score: Sequence[float]
    sft_loss: Sequence[float]
    practised: Sequence[float]


class Mix(Component):
    """How much of each algorithm a run has, and for which prompts.

    Attributes:
        needs_memory: whether `weights` or `hints` read the memory's records of the prompts.
    """

    registry: ClassVar[Registry] = MIXES
    needs_memory: ClassVar[bool] = False

    def plan(self, cycle: Cycle, cycles: int) -> list[Cycle]:
        """The phases of each of the cycles.

        Args:
            cycle: the phases that the settings give, which the last cycle has.
            cycles: how many.
        """
        return [cycle] * cycles

    def weights(self, moment: Moment, prompts: Prompts) -> Sequence[float] | None:
        """The B weights of the prompts' losses in a step; None is 1 everywhere.

        Those of examples weigh SFT, those of rollouts reinforcement learning. An optimiser such as
        Adam takes no notice of a factor that all batches have.
        """
        return None

    def hints(self, moment: Moment, prompts: Prompts) -> Sequence[float] | None:
        """The B shares of the target, in [0, 1], that each response begins with; None is no hint.

        The reward scores hint and response together; what is learnt are the tokens after the hint.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs, as JSON-able data."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
