"""Algorithms: the batches that they need, and the learners that make their steps.

An `Algorithm` is what params.yaml names in a phase: its fields are its options. The `Learner` that
it makes does the work, and has the state. `mht.algorithms.members` holds those that are built in;
an installed package adds others by the entry point group ``mht.algorithm``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mht.algorithms.batch import Batch, Outcome, Stats
from mht.core.component import Component, Registry, registry

if TYPE_CHECKING:
    from torch import Tensor

    from mht.config import HybridConfig
    from mht.models.policy import Policy
    from mht.models.references import References
    from mht.optim.updater import Updater

EXAMPLES, ROLLOUTS, PAIRS = "examples", "rollouts", "pairs"

ALGORITHMS = registry("algorithm")
algorithm = ALGORITHMS.register


@dataclass(frozen=True)
class Trainee:
    """The policy that algorithms train, with its optimiser and settings.

    Attributes:
        policy: the model, its value head and its reference.
        updater: the optimiser, which all algorithms share.
        config: the settings of the cycles.
        seed: for an algorithm's own random numbers.
        references: further frozen models; None where there are none.
    """

    policy: Policy
    updater: Updater
    config: HybridConfig
    seed: int
    references: References | None = None


class Algorithm(Component):
    """One way to learn, as params.yaml names it in a phase.

    Attributes:
        needs: of "examples", "rollouts" and "pairs", what a step is given.
    """

    registry: ClassVar[Registry] = ALGORITHMS
    needs: ClassVar[frozenset[str]]

    def updates(self, config: HybridConfig) -> int:
        """Optimiser steps in one step of the phase."""
        return 1

    @abstractmethod
    def learner(self, trainee: Trainee) -> Learner:
        """The learner that makes the steps of a training run."""


class Learner(ABC):
    """Makes an algorithm's steps."""

    @abstractmethod
    def step(self, batch: Batch) -> Outcome:
        """Learn from one batch.

        With several processes each is given the whole batch and learns from its rows.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs beside the policy and the optimiser."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 (not all have one)
        """Put back what `state_dict` gave."""


class LossLearner(Learner):
    """Makes one optimiser step down a loss for each batch: all that a short algorithm needs.

    A loss is of all rows that this process has, in one pass: ``microbatch_size`` is not used.
    """

    def __init__(self, trainee: Trainee):
        self.trainee = trainee

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, Stats]:
        """The loss of a batch, a mean over its rows, and figures of it, means over them too."""

    def step(self, batch: Batch) -> Outcome:
        """Learn from one batch."""
        updater = self.trainee.updater
        own, share = batch.share(updater.devices.rows)
        loss, stats = self.loss(own)
        update = updater.step(loss * share)
        figures = {"loss": float(loss.detach()), **stats}
        summed = updater.devices.sums({name: value * share for name, value in figures.items()})
        return Outcome(summed | update.figures)
