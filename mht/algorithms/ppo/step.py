"""The PPO step: from a rollout and its scores to updates of the policy and its value head.

Schulman et al. 2017 (arXiv:1707.06347) for language models: Ziegler et al. 2019 (arXiv:1909.08593),
Stiennon et al. 2020 (arXiv:2009.01325). `mht.algorithms.ppo.assess` has the details of the rewards
and advantages, `mht.algorithms.ppo.updates` those of the losses.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from mht.algorithms.base import Learner, Trainee
from mht.algorithms.batch import Batch, Outcome, Rollouts, Stats
from mht.algorithms.ppo.assess import Assessment
from mht.algorithms.ppo.experience import Experience
from mht.algorithms.ppo.ratio import RatioCheck
from mht.algorithms.ppo.updates import Updates
from mht.config import HybridConfig
from mht.losses import AdaptiveKL, FixedKL


class PPO(Learner):
    """Makes PPO's steps.

    Args:
        trainee: the policy, the optimiser and the settings.

    Attributes:
        generator: decides the minibatches.
        check_ratio: compares logprobs before the first update with those of the sampling.
        assessment: gives rewards and advantages.
        updates: makes the optimiser steps.
        kl_control: moves the KL coefficient.
    """

    def __init__(self, trainee: Trainee):
        policy, updater, config = trainee.policy, trainee.updater, trainee.config
        self.policy, self.config = policy, config
        self.generator = torch.Generator().manual_seed(trainee.seed + 1)
        self.check_ratio = RatioCheck(policy.model.dtype, config.ratio_tolerance, updater.devices)
        self.assessment = Assessment(trainee, self.check_ratio)
        self.updates = Updates(policy, updater, config, self.generator, self.check_ratio)
        self.kl_control = _kl_control(config)

    def step(self, batch: Batch) -> Outcome:
        """Learn from one rollout.

        With several processes each is given the whole rollout, passes its rows through the model,
        and returns the figures of the whole. No figure counts past responses but those of the
        updates and ``replay/...``.

        Raises:
            RewardError: the scores are not one finite number for each response.
            UserError: a past response has no sampling logprobs.
            RatioError: the first minibatch shows that the logprobs being trained are not those
                of the distribution that was sampled.
        """
        given = batch.rollouts
        assert given is not None  # as needed
        began = time.perf_counter()
        experience, stats = self.assess(given)
        stats["time/assess_s"] = time.perf_counter() - began
        began = time.perf_counter()
        stats |= self.updates(experience, fresh=len(given))
        stats["time/update_s"] = time.perf_counter() - began
        self.kl_control.update(stats["kl/k1_nats"], len(given))
        return Outcome(stats, surprises=experience.surprises[: len(given)].tolist())

    def assess(self, given: Rollouts) -> tuple[Experience, Stats]:
        """What the updates learn from, and the figures of the rollout; see `Assessment`."""
        experience, stats = self.assessment(given, self.kl_control.value)
        if given.weights is not None:
            experience = experience.weighted(given.weights)
        return experience, stats

    def state_dict(self) -> dict[str, Any]:
        """The KL coefficient, and the states of the scores, the critic and the minibatches."""
        critic, running_std = self.assessment.critic, self.assessment.shaping.running_std
        state = {"kl_coef": self.kl_control.value, "running_std": dict(vars(running_std))}
        if critic is not None:
            state["critic"] = critic.state_dict()
        return {**state, "minibatches": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        critic, running_std = self.assessment.critic, self.assessment.shaping.running_std
        self.kl_control.value = state["kl_coef"]
        vars(running_std).update(state["running_std"])
        if critic is not None:
            critic.load_state_dict(state["critic"])
        self.generator.set_state(state["minibatches"])


def _kl_control(config: HybridConfig) -> AdaptiveKL | FixedKL:
    control = config.kl_control
    if control.type == "adaptive":
        return AdaptiveKL(config.kl_coef, control.target, control.horizon)
    return FixedKL(config.kl_coef)
