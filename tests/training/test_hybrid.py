"""HybridTrainer: the library's face, the alternation, what is saved, repeatability."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

from mht import HybridTrainer, make_reward
from mht.core.errors import ConfigError, DataError, MissingPackage, ModelError, UserError
from mht.data.examples.example import collate_sft
from mht.models.value.files import VALUE_HEAD_FILE
from tests.support.training import (
    EOS,
    PAD,
    TokenShare,
    examples,
    hybrid_config,
    model_of,
    trainer_of,
)

LINEAR = {"SCHEDULER": "linear", "NUM_TRAINING_STEPS": 20000, "NUM_WARMUP_STEPS": 1000}
MISSION_REWARD = {
    "REWARD": {
        "type": "weighted_sum",
        "components": [
            {"type": "jaccard", "weight": 0.4},
            {"type": "length_window", "min": 1, "max": 4, "weight": 0.3},
            {"type": "keyword_count", "keywords": ["film"], "weight": 0.3},
        ],
        "postprocess": [
            {"type": "clip", "min": 0, "max": 1},
            {"type": "ema_normalize", "decay": 0.995},
        ],
    }
}


def padded_batches(tokenizer, side, sizes):
    """Batches as a user's own collator makes them, padded on one side, of different sizes."""
    rows = examples(tokenizer, sum(sizes))

    def fill(row, width, value):
        padding = [value] * (width - len(row))
        return padding + row if side == "left" else row + padding

    def collate(batch):
        ids = [e.prompt_ids + e.target_ids for e in batch]
        labels = [[-100] * len(e.prompt_ids) + e.target_ids for e in batch]
        width, prompt_width = max(map(len, ids)), max(len(e.prompt_ids) for e in batch)
        return {
            "input_ids": torch.tensor([fill(i, width, PAD) for i in ids]),
            "attention_mask": torch.tensor([fill([1] * len(i), width, 0) for i in ids]),
            "labels": torch.tensor([fill(i, width, -100) for i in labels]),
            "prompts": torch.tensor([fill(e.prompt_ids, prompt_width, PAD) for e in batch]),
            "targets": [e.target for e in batch],
        }

    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    picked = [list(range(s, s + n)) for s, n in zip(starts, sizes, strict=True)]
    return DataLoader(rows, batch_sampler=picked, collate_fn=collate)


def test_each_prompt_is_answered_several_times(tiny_model_dir, tiny_tokenizer):
    config, drawn = hybrid_config(responses_per_prompt=4), []
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer, config=config)
    draw = trainer.devices.draw
    trainer.devices.draw = lambda *args: drawn.append(draw(*args)) or drawn[-1]
    for _ in range(2):
        assert "ppo/score/std_within_prompts" in trainer.next_step("ppo")
    for rollout in drawn:
        assert rollout.prompts.bincount().tolist() == [4, 4]
        assert len({tuple(row) for row in rollout.response_ids.tolist()}) > 2
    assert trainer.practice.positions[1] == 4, "prompts, not responses, are what is walked through"


# -- a plain loop -----------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_a_plain_loop_over_a_dataloader(tiny_model_dir, tiny_tokenizer, side, unfrozen):
    reward = make_reward({"type": "jaccard"})
    trainer = HybridTrainer(
        base_model_name=str(tiny_model_dir(layers=3)),
        tokenizer=tiny_tokenizer,
        train_data=None,
        reward_fn=reward,
        optimizer_config={"OPTIMIZER": "adamw"},
        scheduler_config=LINEAR,
        lrate=1e-3,
        batch_size=4,
        num_layers_unfrozen=unfrozen,
        device="cpu",
    )
    for batch in padded_batches(tiny_tokenizer, side, [4, 1, 7, 3]):
        loss = trainer.sft_step(batch)
        assert isinstance(loss, float)
        assert loss > 0
        responses = trainer.respond_to_batch(batch["prompts"])
        assert responses.shape[0] == len(batch["prompts"])
        texts = tiny_tokenizer.batch_decode(responses, skip_special_tokens=True)
        scores = reward(texts, batch["targets"])
        stats = trainer.ppo_step(batch["prompts"], responses, torch.tensor(scores))
        assert stats["score/mean"] == pytest.approx(sum(scores) / len(scores))
        assert all(isinstance(v, float) and v == v for v in stats.values())
    assert 0 < trainer.updater.lr < 1e-3  # warming up


def test_the_padding_side_changes_no_response_and_no_loss(tiny_model_dir, tiny_tokenizer):
    seen = []
    for side in ("left", "right"):
        trainer = trainer_of(tiny_model_dir(), tiny_tokenizer)
        (batch,) = padded_batches(tiny_tokenizer, side, [5])
        loss = trainer.sft_step(batch)
        seen.append((loss, trainer.respond_to_batch(batch["prompts"])))
    assert seen[0][0] == pytest.approx(seen[1][0], abs=1e-5)
    assert torch.equal(seen[0][1], seen[1][1])


def test_an_attention_mask_tells_padding_of_another_kind(tiny_model_dir, tiny_tokenizer):
    """EOS as padding, as many tokenizers have it, with the mask beside it."""
    (batch,) = padded_batches(tiny_tokenizer, "left", [5])
    prompts = batch["prompts"]
    mask = (prompts != PAD).long()
    with_eos = torch.where(prompts == PAD, EOS, prompts)
    a, b = (trainer_of(tiny_model_dir(), tiny_tokenizer, seed=1) for _ in range(2))
    plain, masked = a.respond_to_batch(prompts), b.respond_to_batch(with_eos, mask)
    assert torch.equal(plain, masked)
    scores = [1.0, 0.0, 0.5, 0.2, 0.1]
    first = a.ppo_step(prompts, plain, scores)
    second = b.ppo_step(with_eos, masked, scores, mask)
    assert first["policy/entropy_nats"] == pytest.approx(second["policy/entropy_nats"])


def test_responses_from_elsewhere_train_too(tiny_model_dir, tiny_tokenizer):
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer)
    prompts, responses = torch.tensor([[40, 41], [PAD, 50]]), torch.tensor([[60, EOS], [61, 62]])
    stats = trainer.ppo_step(prompts, responses, [1.0, -1.0])
    assert stats["response/length_tokens"] == 2.0
    assert stats["response/ended_share"] == 0.5


def test_sampled_responses_keep_their_logprobs(tiny_model_dir, tiny_tokenizer):
    """So a change of the policy in between is noticed, with or without PAD among the tokens."""
    for wide in (0, 2):
        trainer = trainer_of(tiny_model_dir(), tiny_tokenizer)
        prompts = torch.tensor([[40, 41], [PAD, 50]])
        responses = trainer.respond_to_batch(prompts)
        with torch.no_grad():
            for p in trainer.policy.parameters():
                p.mul_(1.1)
        if not wide:
            with pytest.raises(RuntimeError, match="ratio"):
                trainer.ppo_step(prompts, responses, [1.0, 0.0])
        else:  # the user changed the responses: they are not the sampled ones any more
            trainer.ppo_step(
                prompts, torch.nn.functional.pad(responses, (0, wide), value=PAD), [1.0, 0.0]
            )


@pytest.mark.parametrize("rewards", [[1.0], [1.0, 2.0, 3.0], [float("nan"), 1.0]])
def test_wrong_rewards(tiny_model_dir, tiny_tokenizer, rewards):
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer)
    prompts = torch.tensor([[40, 41], [PAD, 50]])
    with pytest.raises(UserError, match="finite score for each of 2 responses"):
        trainer.ppo_step(prompts, trainer.respond_to_batch(prompts), rewards)


def test_an_empty_prompt(tiny_model_dir, tiny_tokenizer):
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer)
    with pytest.raises(DataError, match="prompt 1 of the batch"):
        trainer.respond_to_batch(torch.tensor([[40, 41], [PAD, PAD]]))


# -- settings ---------------------------------------------------------------------------------


def test_mission_optimizers_as_they_stand(tiny_model_dir, tiny_tokenizer):
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer, optimizer_config={"OPTIMIZER": "adamw"})
    assert type(trainer.updater.optimizer).__name__ == "AdamW"
    try:
        eight = trainer_of(
            tiny_model_dir(), tiny_tokenizer, optimizer_config={"OPTIMIZER": "adamw_8bit"}
        )
        assert "8bit" in type(eight.updater.optimizer).__name__
    except MissingPackage as error:
        assert "pip install bitsandbytes" in str(error)


def test_the_mission_schedule_as_it_stands(tiny_model_dir, tiny_tokenizer):
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer, scheduler_config=LINEAR, lrate=1e-2)
    batch = collate_sft(examples(tiny_tokenizer), PAD)
    rates = []
    for _ in range(3):
        rates.append(trainer.updater.lr)
        trainer.sft_step(batch)
    assert rates == pytest.approx([0.0, 1e-5, 2e-5])


def test_sft_has_its_own_rate(tiny_model_dir, tiny_tokenizer):
    """Whatever PPO's is, and in proportion to the schedule."""
    seen = []
    for lrate in (None, 1e-2):
        trainer = trainer_of(
            tiny_model_dir(),
            tiny_tokenizer,
            config=hybrid_config(sft_lr=5e-4, ppo_steps_per_cycle=0),
            lrate=lrate,
            optimizer_config={"OPTIMIZER": "sgd"},
        )
        trainer.train(log=lambda stats, step: seen.append(stats["sft/optim/lr"]))
    assert seen == pytest.approx([5e-4, 5e-4])


def test_batch_size_wins_over_the_config(tiny_model_dir, tiny_tokenizer):
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer, batch_size=6)
    assert (trainer.config.batch_size, trainer.config.sft_batch_size) == (6, 6)
    assert trainer.config.batch_size % trainer.config.minibatch_size == 0
    with pytest.raises(ConfigError, match="batch_size: should be at least 1, got 0"):
        trainer_of(tiny_model_dir(), tiny_tokenizer, batch_size=0)
    groups = hybrid_config(responses_per_prompt=4)
    with pytest.raises(ConfigError, match="batch_size: 6 does not hold responses_per_prompt 4"):
        trainer_of(tiny_model_dir(), tiny_tokenizer, config=groups, batch_size=6)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"optimizer_config": {"OPTIMIZER": "adamx"}}, ConfigError, "optimizer.type"),
        ({"scheduler_config": {"SCHEDULER": "linea"}}, ConfigError, "scheduler.type"),
        ({"reward_fn": {"type": "jacard"}}, ConfigError, "did you mean 'jaccard'"),
        ({"num_layers_unfrozen": 3}, ModelError, "num_layers_unfrozen: 3"),
        ({"device": "nowhere"}, ModelError, "base.device: 'nowhere'"),
    ],
)
def test_wrong_settings(tiny_model_dir, tiny_tokenizer, options, error, says):
    with pytest.raises(error, match=says):
        trainer_of(tiny_model_dir(), tiny_tokenizer, **options)


def test_padding_must_not_be_eos(tiny_model_dir):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir())
    tokenizer.pad_token = tokenizer.eos_token
    with pytest.raises(ModelError, match="as padding and as EOS"):
        trainer_of(tiny_model_dir(), tokenizer)


def test_no_data_and_no_reward(tiny_model_dir, tiny_tokenizer):
    bare = HybridTrainer(tiny_model_dir(), tiny_tokenizer, device="cpu")
    with pytest.raises(UserError, match="train_data"):
        bare.train([(1, 0)])
    no_reward = HybridTrainer(
        tiny_model_dir(), tiny_tokenizer, examples(tiny_tokenizer), device="cpu", batch_size=2
    )
    with pytest.raises(UserError, match="reward_fn"):
        no_reward.train([(0, 1)])


def test_a_loaded_model_and_its_own_tokenizer(tiny_model_dir):
    model = model_of(tiny_model_dir())
    trainer = HybridTrainer(model, device="cpu")
    assert trainer.policy.model is model
    assert trainer.tokenizer.pad_token_id == PAD


# -- rewards ----------------------------------------------------------------------------------


def counting_reward(response, target, prompt="", item=None):
    assert prompt
    assert "number" in item
    return float(len(response))


@pytest.mark.parametrize("kind", ["spec", "mission", "reward", "function", "config"])
def test_any_kind_of_reward(tiny_model_dir, tiny_tokenizer, kind):
    reward = {
        "spec": {"type": "jaccard"},
        "mission": MISSION_REWARD,
        "reward": TokenShare(letter="e"),
        "function": counting_reward,
        "config": None,
    }[kind]
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer, reward_fn=reward)
    seen = {}
    trainer.train([(0, 1)], log=lambda stats, step: seen.update(stats))
    assert "ppo/score/mean" in seen
    if kind == "mission":
        names = {name for name in seen if name.startswith("ppo/reward/")}
        assert {f"ppo/reward/{n}" for n in ("jaccard", "length_window", "keyword_count")} <= names
        assert seen["ppo/reward/post"] == pytest.approx(seen["ppo/score/mean"])
    if kind == "function":
        assert seen["ppo/score/mean"] > 1


def test_a_function_that_gives_nan_stops_the_run(tiny_model_dir, tiny_tokenizer):
    trainer = trainer_of(
        tiny_model_dir(), tiny_tokenizer, reward_fn=lambda r, t, prompt, item: float("nan")
    )
    with pytest.raises(UserError, match="finite"):
        trainer.train([(0, 1)])


# -- the alternation --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan", [[(2, 0), (1, 0)], [(0, 1), (0, 2)], [(2, 1), (1, 1)], [(0, 0), (1, 0)], []]
)
def test_plans(tiny_model_dir, tiny_tokenizer, plan):
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer)
    phases, cycles = [], []
    trainer.train(
        plan,
        log=lambda stats, step: phases.append((step, {k.split("/")[0] for k in stats})),
        after_cycle=lambda cycle: cycles.append(cycle) or {"validation/x": 1.0},
    )
    wanted = [phase for sft, ppo in plan for phase in ["sft"] * sft + ["ppo"] * ppo]
    steps = [(i, {phase}) for i, phase in enumerate(wanted, start=1)]
    assert [entry for entry in phases if entry[1] != {"validation"}] == steps
    assert cycles == list(range(len(plan) + 1))
    assert trainer.step == len(wanted)


def test_sft_and_ppo_share_one_set_of_weights(tiny_model_dir, tiny_tokenizer):
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer)
    seen = []
    for plan in ([(1, 0)], [(0, 1)]):
        before = [p.detach().clone() for p in trainer.policy.model.parameters()]
        trainer.train(plan)
        now = trainer.policy.model.parameters()
        seen.append(any(not torch.equal(a, b) for a, b in zip(before, now, strict=True)))
    assert seen == [True, True]
    assert trainer.policy.value_head.bias.item() != 0


def test_sft_learns_the_targets(tiny_model_dir, tiny_tokenizer):
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer, batch_size=6, lrate=3e-3)
    losses = []
    trainer.train([(25, 0)], log=lambda stats, step: losses.append(stats["sft/loss"]))
    assert losses[-1] < losses[0] / 3


# -- what is saved ----------------------------------------------------------------------------


def hashes(folder):
    files = sorted(folder.rglob("*.safetensors"))
    assert {f.name for f in files} == {"model.safetensors", VALUE_HEAD_FILE}
    return [hashlib.sha256(f.read_bytes()).hexdigest() for f in files]


@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_the_same_seed_gives_the_same_bytes(tiny_model_dir, tiny_tokenizer, tmp_path, unfrozen):
    found = []
    for run, seed in enumerate((7, 7, 8)):
        trainer = trainer_of(
            tiny_model_dir(), tiny_tokenizer, seed=seed, num_layers_unfrozen=unfrozen
        )
        torch.rand(run)  # what else happens in the process makes no difference
        trainer.train([(1, 1), (1, 1)])
        trainer.save(tmp_path / str(run))
        found.append(hashes(tmp_path / str(run)))
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2", "gemma2"])
def test_a_saved_policy_loads_anywhere(tiny_model_dir, tiny_tokenizer, tmp_path, kind):
    trainer = trainer_of(tiny_model_dir(kind), tiny_tokenizer, num_layers_unfrozen=1)
    trainer.train([(1, 1)])
    trainer.save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, p in trainer.policy.model.state_dict().items():
        assert torch.equal(p, model.state_dict()[name]), name
    head = load_file(tmp_path / VALUE_HEAD_FILE)
    assert torch.equal(head["weight"], trainer.policy.value_head.weight.detach())
    again = HybridTrainer(tmp_path, device="cpu")
    assert torch.equal(again.policy.value_head.weight, trainer.policy.value_head.weight)
    assert again.tokenizer.get_vocab() == tiny_tokenizer.get_vocab()
