"""PPO's advantages, policy losses and aggregations, chosen by name."""

import math
from types import SimpleNamespace

import pytest
import torch

from mht.config import HybridConfig
from mht.core.component import build
from mht.core.errors import ConfigError
from tests.support.ppo import SCORES, assess, ppo_of, ppo_step, sampled, without_times
from tests.support.training import hybrid_config

MASK = torch.tensor([[True, True, True, False], [True, False, False, False]])
LOSSES = torch.tensor([[1.0, 2.0, 3.0, 99.0], [10.0, 99.0, 99.0, 99.0]])


@pytest.mark.parametrize(("kind", "mean"), [("token_mean", 4.0), ("sequence_mean", 6.0)])
def test_aggregations_of_parts_make_up_that_of_the_whole(kind, mean):
    chosen = hybrid_config(aggregation={"type": kind}).aggregation
    assert chosen.mean(LOSSES, MASK) == mean
    parts = [
        chosen.mean(LOSSES[i : i + 1], MASK[i : i + 1]) * chosen.size(MASK[i : i + 1])
        for i in range(2)
    ]
    assert sum(parts) / chosen.size(MASK) == mean


@pytest.mark.parametrize("kind", ["token_mean", "sequence_mean"])
def test_every_aggregation_is_the_same_over_microbatches(kind, tiny_model_dir):
    stats = []
    for size in (None, 1):
        ppo = ppo_of(
            tiny_model_dir(), microbatch_size=size, aggregation={"type": kind}, optimizer="sgd"
        )
        stats.append(without_times(ppo_step(ppo, sampled(ppo, ends=range(100, 140)), SCORES)))
    assert stats[0] == pytest.approx(stats[1], rel=1e-3, abs=1e-5)


def test_an_unclipped_loss_has_the_clipped_one_s_gradient_at_a_ratio_of_1(tiny_model_dir):
    first = [
        ppo_of(tiny_model_dir(), policy_loss={"type": kind}, minibatch_size=8, epochs=1)
        for kind in ("clip", "unclipped")
    ]
    norms = [ppo_step(ppo, sampled(ppo), SCORES)["optim/grad_norm"] for ppo in first]
    assert norms[0] > 0 and norms[1] == pytest.approx(norms[0], rel=1e-4)


def test_an_unclipped_loss_has_no_bound():
    logprobs, mask = torch.tensor([[1.0, -1.0]]), torch.ones(1, 2, dtype=torch.bool)
    config = hybrid_config(policy_loss={"type": "unclipped"})
    batch = SimpleNamespace(
        old_logprobs=torch.zeros(1, 2), advantages=torch.tensor([[2.0, -1.0]]), mask=mask
    )
    losses = config.policy_loss.losses(logprobs, batch, config)
    assert losses[0].tolist() == pytest.approx([-2 * math.e, 1 / math.e])


def test_advantages_may_stay_as_they_are(tiny_model_dir):
    ppo = ppo_of(tiny_model_dir(), advantage={"whiten": False}, kl_coef=0.0)
    experience, _ = assess(ppo, sampled(ppo), SCORES)
    raw = experience.returns - experience.old_values
    assert torch.allclose(experience.advantages, raw, atol=1e-6)


def test_a_part_s_name_that_does_not_exist():
    steps = {"cycles": 1, "sft_steps_per_cycle": 1, "ppo_steps_per_cycle": 0}
    with pytest.raises(ConfigError) as caught:
        build(HybridConfig, steps | {"policy_loss": {"type": "clp"}, "advantage": {"lamb": 1}})
    said = str(caught.value)
    assert "policy_loss.type: unknown policy_loss 'clp' (did you mean 'clip'?)" in said
    assert "advantage.lamb: no such option 'lamb'" in said
