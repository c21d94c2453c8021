"""Scoring beside the passes that need no score."""

import threading

import pytest
import torch

from mht.config import HybridConfig
from mht.core.errors import RewardError
from mht.training import feed
from mht.training.background import background
from mht.training.hybrid import HybridTrainer
from tests.support.ppo import ppo_step
from tests.support.training import examples

CPU, GPU = torch.device("cpu"), torch.device("meta")  # anything but a CPU


def test_both_sides_go_on_together():
    """Neither could end alone."""
    met = threading.Barrier(2, timeout=60)
    with background(lambda: met.wait() is not None, GPU) as result:
        met.wait()
        value, seconds = result()
    assert value and seconds > 0


def test_the_error_comes_where_the_result_is_wanted():
    def fails():
        raise RewardError("no score")

    reached = []
    with pytest.raises(RewardError, match="no score"), background(fails, GPU) as result:
        reached.append("the block goes on")
        result()
    assert reached


def test_the_block_waits_when_it_fails():
    ended, go_on = [], threading.Event()

    def slow():
        go_on.wait(60)
        ended.append(True)

    with pytest.raises(KeyError), background(slow, GPU):
        go_on.set()
        raise KeyError
    assert ended


def test_on_a_cpu_the_work_waits_until_it_is_wanted():
    order = []
    with background(lambda: order.append("work"), CPU) as result:
        order.append("block")
        assert result() == result()  # done once
    assert order == ["block", "work"]


@pytest.fixture
def trainer(tiny_model_dir, tiny_tokenizer):
    def make(reward):
        settings = {"batch_size": 4, "minibatch_size": 2, "response_tokens": 6, "epochs": 1}
        steps = {"cycles": 1, "sft_steps_per_cycle": 0, "ppo_steps_per_cycle": 1}
        config = HybridConfig(
            **steps, **settings, reward={"type": "length_window", "min": 1, "max": 9}
        )
        data = examples(tiny_tokenizer)
        return HybridTrainer(
            tiny_model_dir("llama"), tiny_tokenizer, data, reward, config=config,
            num_layers_unfrozen=1, device="cpu",
        )  # fmt: skip

    return make


def test_a_score_may_wait_for_the_reference_s_pass(trainer, monkeypatch):
    """The reward ends only after the passes of the assessment have been made."""
    monkeypatch.setattr(feed, "background", lambda compute, _: background(compute, GPU))
    read = threading.Event()

    def reward(response, target, prompt, item):
        assert read.wait(60), "the passes wait for the scores"
        return float(len(response) % 3)

    made = trainer(reward)
    ref_logprobs = made.policy.ref_logprobs

    def seen(*args, **kwargs):
        found = ref_logprobs(*args, **kwargs)
        read.set()
        return found

    made.policy.ref_logprobs = seen
    stats = made.next_step("ppo")
    assert stats["ppo/time/reward_s"] > 0


def test_a_reward_that_fails_fails_the_step(trainer):
    def reward(response, target, prompt, item):
        raise RewardError("the judge is out")

    made = trainer(reward)
    before = [p.clone() for p in made.policy.parameters()]
    with pytest.raises(RewardError, match="the judge is out"):
        made.next_step("ppo")
    assert all(torch.equal(a, b) for a, b in zip(before, made.policy.parameters(), strict=True))


@pytest.mark.parametrize("given", [[1.0, 2.0], [1.0, float("nan"), 0.0, 0.0]])
def test_a_score_for_each_response(trainer, given):
    made = trainer(lambda *args, **kwargs: 0.0)
    rows = made.practice.examples(range(4))
    rollout = made.responder.respond(rows, made.generator)
    with pytest.raises(RewardError, match="a finite score for each of 4 responses"):
        ppo_step(made.ppo, rollout, given)
