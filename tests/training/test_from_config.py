"""The trainer of a stage: SFT steps go on with the data where the SFT stage ended."""

import sys
from types import SimpleNamespace

import pytest

from mht.config import BaseConfig, Config, ModelConfig, SFTConfig
from mht.config.overlays.overlay import read_mapping
from mht.core.component import build
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
    later = trainer_of(
        tiny_model_dir("gpt2"), tiny_tokenizer, sft_rows=STAGE.steps * STAGE.batch_size
    )
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
    ("name", "rows"),
    [("hybrid", 160 * 16), ("sft_only", 160 * 16), ("ppo_only", 0), ("later", 160 * 16 + 84 * 16)],
)
def test_the_stage_says_what_the_start_has_seen(name, rows, monkeypatch):
    settings = read_mapping("params.yaml")
    settings["baselines"]["later"] = {"start": "hybrid", "like": "ppo"}
    config, seen = build(Config, settings), []
    monkeypatch.setattr(ppo, "over_seeds", lambda *given: seen.append(given[-1].args[0]))
    monkeypatch.setattr(sys, "argv", ["", name])
    ppo.main(config, SimpleNamespace(deps=(), model=lambda path: None))
    assert seen[0].sft_rows == rows
    assert seen[0].start == config.baselines[name].start
