"""A mix from an installed package: phases by cycle, weights of prompts, hints."""

import pytest
import torch

from mht.config import HybridConfig
from mht.core.component import build
from mht.core.errors import ConfigError
from mht.training.hybrid import HybridTrainer
from tests.support.plugins import Toy
from tests.support.training import EOS, examples, hybrid_config

pytest_plugins = ["tests.support.plugins"]

CODE = '''
import math

from mht.algorithms.mixes.base import Mix


class Fading(Mix):
    """Half of the target at first and nothing at the end; SFT in the first cycle alone."""

    share: float = 0.5

    def plan(self, cycle, cycles):
        return [tuple(p for p in cycle if not i or p[0] != "sft") for i in range(cycles)]

    def hints(self, moment, prompts):
        return [self.share * (1 - moment.share)] * len(prompts.rows)


class Known(Mix):
    """Nothing of a prompt's loss counts until the memory knows it."""

    needs_memory = True

    def weights(self, moment, prompts):
        known = prompts.mean_score if moment.phase == "ppo" else prompts.sft_loss
        return [float(not math.isnan(value)) for value in known]


class Scaled(Mix):
    """All losses of a phase count alike."""

    sft: float = 1.0
    ppo: float = 1.0

    def weights(self, moment, prompts):
        return [getattr(self, moment.phase)] * len(prompts.rows)
'''
TOY = Toy(
    "acme_mixes",
    CODE,
    {"mix": {"fading": "Fading", "known": "Known", "scaled": "Scaled"}},
    row={"mix": {"type": "fading", "share": 0.9}, "ppo_steps_per_cycle": 2},
)


@pytest.fixture
def make(site, tiny_model_dir, tiny_tokenizer):
    def trainer(mix, **changes):
        config = hybrid_config(mix=mix, **changes)
        rows = examples(tiny_tokenizer)
        options = {"config": config, "num_layers_unfrozen": 1, "device": "cpu"}
        return HybridTrainer(
            tiny_model_dir(), tiny_tokenizer, rows, changes.get("reward"), **options
        )

    return trainer


def test_a_mix_from_outside_runs_in_the_pipeline(toy_rows):
    assert [row["step"] for row in toy_rows.curve("acme_mixes", "sft")] == [1]
    rows = toy_rows.curve("acme_mixes", "ppo")
    assert [row["step"] for row in rows] == [2, 3, 4, 5]
    hints = [row["ppo/hint/length_tokens"] for row in rows]
    assert hints[0] > hints[1] > hints[2] > hints[3] > 0
    assert all(row["ppo/policy/ratio_max"] < 10 for row in rows)


def test_a_hinted_response_is_scored_with_its_hint(make, tiny_tokenizer):
    """And only what follows the hint is sampled and learnt."""
    seen, stepped = [], []

    def reward(response, target, prompt, item):
        seen.append((prompt, response, target))
        return 0.0

    trainer = make({"type": "fading", "share": 0.5}, reward=None, ppo_steps_per_cycle=0)
    trainer.feed.reward = reward
    step = trainer.ppo.step
    trainer.ppo.step = lambda batch: stepped.append(batch.rollouts.rollout) or step(batch)
    trainer.next_step("ppo", of=100)
    by_prompt = {e.prompt: e for e in examples(tiny_tokenizer)}
    rollout = stepped[0]
    assert len(seen) == len(rollout) == 8
    for row, (prompt, response, target) in enumerate(seen):
        example = by_prompt[prompt]
        hint = example.target_ids[: len(example.target_ids) // 2]
        assert EOS not in hint and target == example.target
        ids = rollout.prompt_ids[row][rollout.prompt_mask[row]].tolist()
        assert ids == example.prompt_ids + hint
        text = tiny_tokenizer.decode(hint, skip_special_tokens=True)
        assert response.lstrip().startswith(text.strip()[:-1]), (response, text)


def test_the_memory_keeps_no_hinted_response(make):
    memory = {"type": "adaptive", "prompts": 0.5}
    trainer = make({"type": "fading", "share": 0.5}, memory=memory)
    assert trainer.next_step("ppo", of=1)["ppo/memory/responses"] == 0
    assert trainer.next_step("ppo", of=1)["ppo/memory/responses"] == 8, "the run is over: no hint"


def test_weights_scale_the_losses(make):
    plain, scaled = (make({"type": "scaled", "sft": sft, "ppo": ppo}, optimizer={"type": "sgd"},
                          max_grad_norm=1e9) for sft, ppo in ((1.0, 1.0), (0.25, 0.0)))  # fmt: skip
    before = [p.detach().clone() for p in plain.policy.model.parameters()]
    stats = [trainer.next_step("sft") for trainer in (plain, scaled)]
    assert stats[1]["sft/loss"] == pytest.approx(0.25 * stats[0]["sft/loss"])
    for start, one, other in zip(
        before, plain.policy.model.parameters(), scaled.policy.model.parameters(), strict=True
    ):
        torch.testing.assert_close(other - start, 0.25 * (one - start), atol=1e-7, rtol=1e-3)
    stats = scaled.next_step("ppo")
    assert stats["ppo/policy/loss"] == 0 and stats["ppo/value/loss"] > 0


def test_weights_may_look_at_what_the_memory_knows(make):
    trainer = make(
        {"type": "known"}, memory={"type": "adaptive", "rehearsal": 0.5}, sft_batch_size=6,
        batch_size=6, minibatch_size=6,
    )  # fmt: skip
    assert trainer.next_step("sft")["sft/loss"] == 0, "no prompt was known"
    assert trainer.next_step("sft")["sft/loss"] > 0
    assert trainer.next_step("ppo")["ppo/policy/loss"] == 0
    settings = {"cycles": 1, "sft_steps_per_cycle": 1, "mix": {"type": "known"}}
    with pytest.raises(ConfigError, match="memory.type: known reads the memory's records"):
        build(HybridConfig, settings)


def test_a_wrong_mix_is_refused():
    with pytest.raises(ConfigError) as caught:
        build(HybridConfig, {"cycles": 1, "mix": {"type": "linera", "first": {}}}, path="ppo")
    (problem,) = caught.value.problems
    assert problem.startswith("ppo.mix.type: unknown mix 'linera' (did you mean 'linear'?)")
