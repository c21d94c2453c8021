"""The trainer of a stage: SFT steps go on with the data where the SFT stage ended."""

import sys
from types import SimpleNamespace

import pytest

from mht.config import BaseConfig, ModelConfig, SFTConfig, load_config
from mht.rewards import make_reward
from mht.training.from_config import make_trainer
from stages import ppo
from tests.support.training import examples, hybrid_config

STAGE = SFTConfig(steps=2, batch_size=2)


def trainer_of(folder, tokenizer, **options):
    return make_trainer(
        folder,
        examples(tokenizer, 12),
        STAGE.as_cycles().model_copy(update={"sft_steps_per_cycle": 6}),
        section="sft",
        base=BaseConfig(),
        model=ModelConfig(name=str(folder)),
        **options,
    )


def test_sft_goes_on_with_the_rows_that_come_next(tiny_model_dir, tiny_tokenizer):
    stage = trainer_of(tiny_model_dir("gpt2"), tiny_tokenizer)
    walk = [stage.practice.take_sft_rows() for _ in range(6)]
    later = trainer_of(tiny_model_dir("gpt2"), tiny_tokenizer, after=STAGE)
    assert [later.practice.take_sft_rows() for _ in range(4)] == walk[2:]
    assert sorted(row for rows in walk for row in rows) == list(
        range(12)
    )  # so no row is seen twice before all are once


def test_a_trainer_knows_nothing_of_the_one_before(tiny_model_dir, tiny_tokenizer):
    """The state of a reward stays with the run: every seed begins without one."""
    ema = [{"type": "ema_normalize", "decay": 0.9}]
    reward = make_reward({"type": "length_window", "min": 1, "max": 3, "postprocess": ema})
    config, folder = hybrid_config(reward=reward), tiny_model_dir()

    def trained():
        trainer = make_trainer(
            folder, examples(tiny_tokenizer), config,
            section="ppo", base=BaseConfig(), model=ModelConfig(name=str(folder)),
        )  # fmt: skip
        before = trainer.reward.state_dict()
        stats = [trainer.next_step("ppo") for _ in range(2)]
        assert trainer.reward.state_dict() != before
        return [{k: v for k, v in s.items() if "/time/" not in k} for s in stats]

    assert trained() == trained()


@pytest.mark.parametrize(
    ("name", "goes_on"), [("hybrid", True), ("sft_only", True), ("ppo_only", False)]
)
def test_the_stage_says_which_start_is_the_sft_stages(name, goes_on, monkeypatch):
    config, seen = load_config("params.yaml"), {}
    monkeypatch.setattr(ppo, "train_variant", lambda *_, **options: seen.update(options))
    monkeypatch.setattr(sys, "argv", ["", name])
    ppo.main(config, SimpleNamespace(deps=()))
    assert (seen["after"] == config.sft) is goes_on
    assert (seen["start"] == "models/sft") is goes_on
