"""Proximal policy optimisation, as a phase."""

from __future__ import annotations

from typing import ClassVar

from mht.algorithms.base import ROLLOUTS, Algorithm, Learner, Trainee, algorithm
from mht.config import HybridConfig


@algorithm("ppo")
class ProximalPolicyOptimisation(Algorithm):
    """PPO (arXiv:1707.06347) with a value head; its settings are those of the cycles."""

    type: str = "ppo"
    needs: ClassVar[frozenset[str]] = frozenset({ROLLOUTS})

    def updates(self, config: HybridConfig) -> int:
        """Optimiser steps on one rollout."""
        return config.updates_per_ppo_step

    def learner(self, trainee: Trainee) -> Learner:
        """See `Algorithm.learner`."""
        from mht.algorithms.ppo.step import PPO

        return PPO(trainee)
