"""PPO as the phase of a cycle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mht.algorithms.base import Learner, Trainee
from mht.algorithms.batch import Batch, Outcome
from mht.algorithms.ppo.step import PPO


class PPOLearner(Learner):
    """Makes PPO's steps.

    Attributes:
        ppo: the algorithm, with all its state but that of the minibatches' draws.
    """

    def __init__(self, trainee: Trainee):
        minibatches = torch.Generator().manual_seed(trainee.seed + 1)
        self.ppo = PPO(
            trainee.policy, trainee.updater, trainee.config, minibatches, trainee.references
        )

    def step(self, batch: Batch) -> Outcome:
        """Learn from one rollout."""
        given = batch.rollouts
        assert given is not None  # as needed
        stats = self.ppo.step(given.rollout, given.scores, given.items, given.past, given.weights)
        return Outcome(stats, surprises=self.ppo.surprises.tolist())

    def state_dict(self) -> dict[str, Any]:
        """Of PPO, its critic and its minibatches."""
        critic = self.ppo.critic
        own = {"critic": critic.state_dict()} if critic is not None else {}
        return {**self.ppo.state_dict(), **own, "minibatches": self.ppo.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.ppo.load_state_dict(dict(state))
        if self.ppo.critic is not None:
            self.ppo.critic.load_state_dict(state["critic"])
        self.ppo.generator.set_state(state["minibatches"])
