"""A PPO step of its own for a test, and what it samples."""

import torch

from mht.algorithms.base import Trainee
from mht.algorithms.batch import Batch, Rollouts
from mht.algorithms.ppo.step import PPO
from mht.generation.sampling.decode import sample
from mht.models.policy import Policy
from mht.optim.optimizers import make_optimizer, make_scheduler
from mht.optim.updater import Updater
from tests.support.training import (
    EOS,
    PAD,
    hybrid_config,
    model_of,
    rollout_of,
)

PROMPTS = [[40, 41, 42, 43], [50], [60, 61], [70, 71, 72]] * 2
SCORES = [1.0, -0.5, 0.25, 2.0, 0.0, 1.5, -1.0, 0.75]


def ppo_of(folder, *, unfrozen="all", seed=0, lr=1e-3, optimizer="adamw", **changes):
    """A PPO step on the model of a folder; ``changes`` are settings."""
    policy = Policy(model_of(folder), unfrozen)
    return ppo_on(policy, seed=seed, lr=lr, optimizer=optimizer, **changes)


def ppo_on(policy, *, seed=0, lr=1e-3, optimizer="adamw", **changes):
    """A PPO step on this policy."""
    config = hybrid_config(**changes)
    made = make_optimizer(policy.parameters(), {"type": optimizer}, lr)
    updater = Updater(policy.parameters(), made, make_scheduler(made), config.max_grad_norm)
    return PPO(Trainee(policy, updater, config, seed - 1))


def given(rollout, scores, past=None):
    """A rollout with its scores, as PPO takes it."""
    return Rollouts(rollout, lambda: scores, past=past)


def ppo_step(ppo, rollout, scores, past=None):
    """The figures of one PPO step."""
    return ppo.step(Batch(rollouts=given(rollout, scores, past))).stats


def assess(ppo, rollout, scores=SCORES, past=None):
    """What the updates learn from, and the figures of the rollout."""
    return ppo.assess(given(rollout, scores, past))


def sampled(ppo, *, seed=0, temperature=None, ends=(EOS,), prompts=PROMPTS):
    bare = rollout_of(prompts, [[9]] * len(prompts))
    return sample(
        ppo.policy.model,
        bare.prompt_ids,
        bare.prompt_mask,
        response_tokens=ppo.config.response_tokens,
        eos_ids=set(ends),
        pad_id=PAD,
        temperature=temperature or ppo.config.temperature,
        generator=torch.Generator().manual_seed(seed),
        trunk=ppo.policy.trunk,
    )


def without_times(stats):
    return {k: v for k, v in stats.items() if not k.startswith("time/")}


def weights(ppo):
    return torch.cat([p.detach().flatten() for p in ppo.policy.parameters()])
