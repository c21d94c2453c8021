"""Single steps in a loop of one's own: any batch, what is padding, which responses are known."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from mht import HybridTrainer, make_optimizer, make_reward, make_scheduler
from mht.algorithms.batch import Outcome
from mht.core.errors import ConfigError, DataError, ModelError, RewardError, UserError
from mht.core.keywords import WrongKeyword
from mht.generation.sampling.padding import content_mask, response_content
from mht.training.library import batches
from tests.support.training import EOS, PAD, hybrid_config, model_of, rollout_of, trainer_of

ROWS = [[40, 41, 42, 60, 61, EOS], [50, 70, EOS], [51, 52, 71, 72]]
LABELS = [[-100] * 3 + [60, 61, EOS], [-100, 70, EOS], [-100, -100, 71, 72]]
PROMPTS = [[40, 41, 42], [50], [51, 52]]


@pytest.fixture
def trainer(tiny_model_dir, tiny_tokenizer):
    return trainer_of(tiny_model_dir(), tiny_tokenizer, None, num_layers_unfrozen=1)


def filled(rows, fill, left=0, right=0):
    """Rows as a tensor, shorter ones filled up on the left where ``left``, else on the right."""
    width = max(map(len, rows)) + left + right
    return torch.tensor(
        [[fill] * (width - len(r)) + r if left else r + [fill] * (width - len(r)) for r in rows]
    )


def batch_of(left=0, right=0, rows=ROWS, labels=LABELS):
    ones = [[1] * len(row) for row in rows]
    return {
        "input_ids": filled(rows, PAD, left, right),
        "attention_mask": filled(ones, 0, left, right),
        "labels": filled(labels, -100, left, right),
    }


# -- the mission's loop -------------------------------------------------------------------------


@pytest.mark.parametrize("columns", ["torch", "lists"])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_loop_over_a_dataset(tiny_model_dir, tiny_tokenizer, columns, batch_size):
    """A `datasets.Dataset` of token ids, by torch's own collating; the last batch is smaller."""
    from datasets import Dataset

    data = Dataset.from_dict({k: v.tolist() for k, v in batch_of(right=1).items()})
    data = data.with_format("torch") if columns == "torch" else data
    reward = make_reward({"type": "length_window", "min": 1, "max": 3})
    trainer = HybridTrainer(
        str(tiny_model_dir()),
        tiny_tokenizer,
        None,
        reward,
        {"OPTIMIZER": "adamw"},
        {"SCHEDULER": "linear", "NUM_TRAINING_STEPS": 20000, "NUM_WARMUP_STEPS": 1000},
        1e-4,
        4,
    )
    for batch in DataLoader(data, batch_size=batch_size):
        loss = trainer.sft_step(batch)
        response_ids = trainer.respond_to_batch(batch["input_ids"])
        texts = tiny_tokenizer.batch_decode(response_ids, skip_special_tokens=True)
        stats = trainer.ppo_step(batch["input_ids"], response_ids, reward(texts, "a film"))
        assert loss > 0 and all(v == v for v in stats.values())


# -- SFT batches --------------------------------------------------------------------------------


def loss_of(trainer, batch):
    """The loss of a batch before a step; the weights stay."""
    state = {k: v.clone() for k, v in trainer.policy.model.state_dict().items()}
    loss = trainer.sft_step(batch)
    trainer.policy.model.load_state_dict(state)
    return loss


def variants():
    plain = batch_of(right=2)
    unpadded = {"input_ids": ROWS, "labels": LABELS, "attention_mask": [[1] * len(r) for r in ROWS]}
    whole = [row + [PAD] * (8 - len(row)) for row in ROWS]
    return {
        "left": batch_of(left=1),
        "bool mask": plain | {"attention_mask": plain["attention_mask"].bool()},
        "float mask": plain | {"attention_mask": plain["attention_mask"].float()},
        "int32": {k: v.int() for k, v in plain.items()},
        "numpy": {k: v.numpy() for k, v in plain.items()},
        "no mask": {k: plain[k] for k in ("input_ids", "labels")},
        "lists": {k: v.tolist() for k, v in plain.items()},
        "lists of arrays": {k: [np.array(r) for r in v] for k, v in unpadded.items()},
        "lists of different lengths": unpadded,
        "as torch collates lists": {k: list(v.unbind(1)) for k, v in plain.items()},
        "other keys": plain | {"prompt": ["a", "b", "c"], "idx": torch.arange(3)},
        "labels on padding": plain | {"labels": filled(LABELS, PAD, right=2)},
        "another filler": plain | {"input_ids": filled(ROWS, EOS, right=2)},
        "a filler outside": plain | {"input_ids": filled(ROWS, -1, right=2)},
        "rows of a frame": {
            k: pd.DataFrame({k: v.tolist() for k, v in plain.items()})[k] for k in plain
        },
        "tuple rows": {"input_ids": [tuple(r) for r in whole], "labels": plain["labels"]},
    }


@pytest.mark.parametrize("name", list(variants()))
@pytest.mark.parametrize("microbatch_size", [None, 2])
def test_every_form_of_a_batch_has_one_loss(tiny_model_dir, tiny_tokenizer, name, microbatch_size):
    config = hybrid_config(microbatch_size=microbatch_size)
    trainer = trainer_of(
        tiny_model_dir(), tiny_tokenizer, None, config=config, num_layers_unfrozen=1
    )
    expected = loss_of(trainer, batch_of())
    assert loss_of(trainer, variants()[name]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": torch.full((3, 6), -100)}, "nothing to learn"),
        ({"attention_mask": torch.zeros(3, 6)}, "nothing to learn"),
        ({"labels": [[40] + [-100] * 5] * 3}, "nothing to learn"),
        ({"labels": torch.zeros(3, 5)}, r"labels: has shape \(3, 5\), its ids \(3, 6\)"),
        ({"attention_mask": torch.zeros(2, 6)}, "attention_mask: has shape"),
        ({"attention_mask": torch.full((3, 6), -1e9)}, "1 for a real token and 0"),
        ({"labels": torch.full((3, 6), 400)}, "-100 or a token from 0 to 399"),
        ({"input_ids": torch.full((3, 6), 400)}, "token 400, but the model has 0 to 399"),
        ({"input_ids": torch.rand(3, 6)}, "with fractions"),
        ({"input_ids": torch.ones(6)}, r"should be \(rows, tokens\)"),
        ({"input_ids": ["a film", "a plot"]}, r"should be \(rows, tokens\)"),
        ({"input_ids": [1, 2, 3]}, r"should be \(rows, tokens\)"),
        ({"input_ids": []}, r"should be \(rows, tokens\)"),
        ({"input_ids": [[1, None]]}, r"should be \(rows, tokens\)"),
        ({"input_ids": [torch.ones(2), torch.ones(3)]}, "different shapes: give the DataLoader"),
    ],
)  # fmt: skip
def test_a_batch_that_does_not_fit(trainer, change, says):
    with pytest.raises(DataError, match=says):
        trainer.sft_step(batch_of() | change)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({"prompt": ["a"], "completion": ["b"]}, "has prompt, completion, but no input_ids"),
        ({"input_ids": [[1, 2]]}, "no labels, -100 where nothing is learnt"),
        ([{"input_ids": [1, 2]}], "needs a dict"),
        ({}, "has nothing, but"),
    ],
)
def test_a_batch_of_something_else(trainer, batch, says):
    with pytest.raises(DataError, match=says):
        trainer.sft_step(batch)


# -- what is padding ----------------------------------------------------------------------------


def test_without_a_mask_only_the_ends_are_padding():
    ids = torch.tensor([[PAD, PAD, 7, PAD, 8, PAD], [7, 8, 9, PAD, PAD, PAD], [PAD] * 6])
    found = content_mask(ids, PAD).int().tolist()
    assert found == [[0, 0, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0], [0] * 6]


def test_responses_end_with_the_first_end_token():
    ids = torch.tensor([[7, EOS, 8, EOS], [7, PAD, 8, PAD], [PAD, 7, PAD, PAD], [PAD] * 4])
    mask, ended = response_content(ids, PAD, {EOS})
    assert mask.sum(1).tolist() == [2, 3, 2, 0]
    assert ended.tolist() == [True, False, False, False]
    given = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]]).bool()
    mask, ended = response_content(ids, PAD, {EOS}, given)
    assert mask.sum(1).tolist() == [1, 4, 3, 1]
    assert not ended.any()


TOKENS = st.lists(st.sampled_from([PAD, EOS, 40, 41]), min_size=1, max_size=6)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(TOKENS, min_size=1, max_size=4), st.data())
def test_any_rows_with_any_padding(rows, data):
    """With the mask the rows themselves; without it the rows but for PAD at their ends."""
    width = max(map(len, rows)) + data.draw(st.integers(0, 3))
    starts = [data.draw(st.integers(0, width - len(row))) for row in rows]
    filler = data.draw(st.sampled_from([PAD, EOS, -1]))
    ids, mask = torch.full((len(rows), width), filler), torch.zeros(len(rows), width)
    for number, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[number, start : start + len(row)] = torch.tensor(row)
        mask[number, start : start + len(row)] = 1
    found, real = batches.prompts(ids, mask, pad_id=PAD, vocabulary=400)
    assert [i[m].tolist() for i, m in zip(found, real, strict=True)] == rows
    assert (found[~real] == PAD).all() and not (~real[:, 1:] & real[:, :-1]).any()
    if filler == PAD:
        found, real = batches.prompts(ids, None, pad_id=PAD, vocabulary=400)
        texts = ["".join(map(chr, row)).strip(chr(PAD)) for row in rows]
        assert ["".join(map(chr, i[m])) for i, m in zip(found, real, strict=True)] == texts


def recording(rollouts):
    """A PPO step that learns nothing and keeps the rollout."""
    return lambda batch: rollouts.append(batch.rollouts.rollout) or Outcome({})


def test_with_a_mask_a_token_that_is_pad_is_content(trainer):
    """At the start, in the middle and at the end of a prompt."""
    ids = torch.tensor([[PAD, 40, PAD, 41, PAD], [50, 51, 52, 53, 54]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    seen = []
    trainer.devices.draw = lambda responder, *prompts: (
        seen.append(prompts) or real(responder, *prompts)
    )
    real = type(trainer.devices).draw.__get__(trainer.devices)
    response = trainer.respond_to_batch(ids, mask)
    assert seen[0][1].tolist() == [[True] * 5, [False, False, True, True, True]]
    assert seen[0][0][0].tolist() == [PAD, 40, PAD, 41, PAD]
    stepped = []
    trainer.ppo.step = recording(stepped)
    for responses in (response, response.clone()):
        trainer.ppo_step(ids, responses, [1.0, 0.0], mask)
    for rollout in stepped:
        assert torch.equal(rollout.prompt_mask, seen[0][1])
        assert rollout.prompt_ids[0].tolist() == [PAD, 40, PAD, 41, PAD]


def test_the_logprobs_are_those_of_the_tokens_that_the_mask_names(trainer):
    """Prompts [PAD, 40] and [40]: with the mask they are two, whatever their padding."""
    responses = torch.tensor([[60, EOS], [60, EOS]])
    seen = []
    trainer.ppo.step = recording(seen)
    ids = torch.tensor([[PAD, 40], [PAD, 40]])
    trainer.ppo_step(ids, responses, [0.0, 0.0], torch.tensor([[1, 1], [0, 1]]))
    trainer.ppo_step(ids, responses, [0.0, 0.0])
    expected = [rollout_of([p], [[60, EOS]]) for p in ([PAD, 40], [40])]
    with torch.no_grad():
        (one, other), given, bare = (
            [trainer.policy.score(r).logprobs for r in expected],
            *(trainer.policy.score(r).logprobs for r in seen),
        )
    torch.testing.assert_close(given, torch.cat([one, other]), atol=1e-5, rtol=0)
    torch.testing.assert_close(bare, torch.cat([other, other]), atol=1e-5, rtol=0)
    assert (one - other).abs().max() > 0.01


# -- which responses are known ------------------------------------------------------------------


def known(trainer, *call):
    """Whether ``ppo_step`` would use the log-probabilities of the sampling."""
    return trainer._rollout(*call, None, None).logprobs is not None


def test_the_tensor_that_was_given_out_is_known(trainer):
    prompts = filled(PROMPTS, PAD)
    response = trainer.respond_to_batch(prompts)
    assert known(trainer, prompts, response)
    assert known(trainer, filled(PROMPTS, PAD, right=0, left=0).clone(), response)
    assert not known(trainer, prompts, response.clone())  # may come from anywhere
    assert not known(trainer, prompts.flip(0), response)
    assert not known(trainer, prompts[:2], response[:2])
    response[0, 0] = 99
    assert not known(trainer, prompts, response)


def test_reordered_filtered_and_edited_responses_have_their_own_logprobs(trainer):
    """What is learnt from is what the policy says of the very tokens given."""
    prompts = filled(PROMPTS, PAD)
    response = trainer.respond_to_batch(prompts)
    edited = response.clone()
    edited[:, 0] = 77
    seen = []
    trainer.ppo.step = recording(seen)
    order = torch.tensor([2, 0, 1])
    for p, r in (
        (prompts[order], response[order]),
        (prompts[1:], response[1:]),
        (prompts, edited),
        (prompts, response[order]),
    ):
        rows = range(len(p))
        trainer.ppo_step(p, r, [0.0] * len(p))
        with torch.no_grad():
            found = trainer.policy.sampled_scores(seen[-1]).logprobs
            rollout = seen[-1]
            for row in rows:
                alone = rollout_of(
                    [[t for t in p[row].tolist() if t != PAD]],
                    [rollout.response_ids[row][rollout.response_mask[row]].tolist()],
                )
                expected = trainer.policy.score(alone).logprobs[0]
                torch.testing.assert_close(found[row, : len(expected)], expected, atol=1e-5, rtol=0)
                assert r[row, : len(expected)].tolist() == alone.response_ids[0].tolist()


def test_responses_of_before_an_update_are_computed_anew(trainer):
    """Several batches are drawn, then learnt from one after the other."""
    prompts = filled(PROMPTS, PAD)
    drawn = [trainer.respond_to_batch(prompts) for _ in range(3)]
    for response in drawn:
        trainer.ppo_step(prompts, response, [1.0, 0.0, 0.5])
        assert trainer._drawn is None


@pytest.mark.parametrize(
    "rewards",
    [[1, 0, 2], torch.tensor([1.0, 0.0, 2.0]), torch.tensor([[1.0], [0.0], [2.0]]), (1, 0, 2),
     np.array([1.0, 0.0, 2.0]), torch.tensor([1, 0, 2], dtype=torch.bfloat16),
     [torch.tensor(1.0), torch.tensor(0.0), torch.tensor(2.0)]],
)  # fmt: skip
def test_rewards_of_any_form(trainer, rewards):
    prompts = filled(PROMPTS, PAD)
    stats = trainer.ppo_step(prompts, trainer.respond_to_batch(prompts), rewards)
    assert stats["score/mean"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "rewards", [1.0, "good", [[1.0, 2.0, 3.0]], [None, 1, 2], torch.ones(3, 2), [1.0, 2.0], None]
)
def test_rewards_that_do_not_fit(trainer, rewards):
    prompts = filled(PROMPTS, PAD)
    with pytest.raises(RewardError, match="rewards: should be a finite score for each of 3"):
        trainer.ppo_step(prompts, trainer.respond_to_batch(prompts), rewards)


def test_one_score_for_one_response(trainer):
    prompts = torch.tensor([[40, 41]])
    assert trainer.ppo_step(prompts, trainer.respond_to_batch(prompts), 0.5)["score/mean"] == 0.5


def test_responses_to_other_prompts(trainer):
    with pytest.raises(DataError, match="response_ids: 1 responses to 2 prompts"):
        trainer.ppo_step([[40], [41]], [[60]], [1.0])


# -- the prompts of an SFT batch ----------------------------------------------------------------


@pytest.mark.parametrize("sides", [{"left": 1}, {"right": 2}, {}])
def test_the_prompts_of_a_batch(trainer, sides):
    ids, mask = trainer.prompts_of(batch_of(**sides))
    assert torch.equal(ids, rollout_of(PROMPTS, [[1]] * 3).prompt_ids)
    assert torch.equal(mask.bool(), rollout_of(PROMPTS, [[1]] * 3).prompt_mask)
    response_ids = trainer.respond_to_batch(ids, mask)
    assert len(trainer.decode_responses(ids, response_ids, mask)) == 3


# -- wrong keywords and arguments ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "meant"),
    [
        ("model", "base_model_name"), ("learning_rate", "lrate"), ("lr", "lrate"),
        ("reward", "reward_fn"), ("reward_funcs", "reward_fn"), ("train_dataset", "train_data"),
        ("processing_class", "tokenizer"), ("optimizer", "optimizer_config"),
        ("lr_scheduler", "scheduler_config"), ("peft_config", "lora"), ("args", "config"),
        ("batchsize", "batch_size"), ("tokeniser", "tokenizer"), ("Batch_Size", "batch_size"),
        ("num_layers_unfreeze", "num_layers_unfrozen"), ("LR", "lrate"),
    ],
)  # fmt: skip
def test_a_wrong_keyword_names_the_right_one(tiny_model_dir, keyword, meant):
    says = f"^HybridTrainer: no argument '{keyword}' .did you mean '{meant}'"
    with pytest.raises(TypeError, match=says) as caught:
        HybridTrainer(**{keyword: str(tiny_model_dir())})
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)


def test_a_setting_is_sent_to_the_config(tiny_model_dir):
    with pytest.raises(WrongKeyword, match=r"'epochs': .* config=HybridConfig\(epochs=...\)"):
        HybridTrainer(tiny_model_dir(), epochs=3)
    with pytest.raises(WrongKeyword, match="'zzz'. It takes base_model_name, tokenizer"):
        HybridTrainer(tiny_model_dir(), zzz=3)


def test_wrong_keywords_of_the_other_calls(trainer):
    prompts = torch.tensor([[40]])
    for call, keyword, meant in (
        (lambda: trainer.ppo_step(queries=prompts), "queries", "input_ids"),
        (lambda: trainer.ppo_step(prompts, responses=prompts), "responses", "response_ids"),
        (lambda: trainer.ppo_step(prompts, prompts, scores=[1.0]), "scores", "rewards"),
        (lambda: trainer.respond_to_batch(prompts=prompts), "prompts", "input_ids"),
        (lambda: trainer.sft_step(inputs={}), "inputs", "batch"),
        (lambda: trainer.train(steps=[(1, 1)]), "steps", "plan"),
        (lambda: make_optimizer([], learning_rate=1.0), "learning_rate", "lr"),
        (lambda: make_scheduler(None, num_training_steps=5), "num_training_steps", "training_"),
        (lambda: make_reward(config={}), "config", "spec"),
    ):
        with pytest.raises(WrongKeyword, match=f"no argument '{keyword}' .did you mean '{meant}"):
            call()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"base_model_name": None}, ModelError, "base_model_name: needs a folder, a hub name"),
        ({"base_model_name": torch.nn.Linear(1, 1)}, ModelError, "base_model_name: needs"),
        ({"tokenizer": 3}, ModelError, "tokenizer: needs one, or a folder"),
        ({"reward_fn": "jaccard"}, ConfigError, "reward_fn: needs a reward, its spec"),
        ({"lrate": "1e-4"}, ConfigError, "lrate: should be a finite number, 0 or more, got '1e-4'"),
        ({"lrate": float("nan")}, ConfigError, "lrate: should be a finite"),
        ({"batch_size": 2.5}, ConfigError, "batch_size: should be a whole number, got 2.5"),
        ({"batch_size": "8"}, ConfigError, "batch_size: should be a whole number"),
        ({"optimizer_config": ["adamw"]}, ConfigError, "optimizer: should be a dict"),
        ({"optimizer_config": {"OPTIMIZER": "adam8bit"}}, ConfigError, "optimizer.type"),
        ({"scheduler_config": {"SCHEDULER": "linear", "WARM_STEPS": 1, "NUM_TRAINING_STEPS": 9}},
         ConfigError, "did you mean 'warmup_steps'"),
        ({"optimizer_config": {"OPTIMIZER": "adamw", "weight_deca": 1}}, ConfigError, "did you me"),
        ({"reward_fn": {"name": "jaccard"}}, ConfigError, "did you mean 'type' for 'name'"),
        ({"reward_fn": {"typ": "jaccard"}}, ConfigError, "did you mean 'type' for 'typ'"),
        ({"lora": {"rank": 4}}, ConfigError, "model.lora.rank: .* .did you mean 'r'"),
        ({"lora": True}, ConfigError, "model.lora: needs a dict such as"),
        ({"config": {"epoch": 2}}, ConfigError, "config.epoch: .* .did you mean 'epochs'"),
        ({"config": 3}, ConfigError, "config: needs a HybridConfig or a dict, got int"),
        ({"seed": "a", "context_window": "b"}, ConfigError, "seed: should be a whole number, got"),
        ({"num_layers_unfrozen": "some"}, ConfigError, "num_layers_unfrozen: should be a whole"),
    ],
)  # fmt: skip
def test_wrong_arguments(tiny_model_dir, tiny_tokenizer, options, error, says):
    options = {"base_model_name": tiny_model_dir(), "tokenizer": tiny_tokenizer} | options
    with pytest.raises(error, match=says):
        HybridTrainer(**options, device="cpu")


def test_names_do_for_optimizer_scheduler_and_tokenizer(tiny_model_dir):
    folder = str(tiny_model_dir())
    trainer = HybridTrainer(
        folder, folder, optimizer_config="sgd", scheduler_config="constant", device="cpu"
    )
    assert type(trainer.updater.optimizer).__name__ == "SGD"
    assert trainer.tokenizer.pad_token_id == PAD


# -- models as they come ------------------------------------------------------------------------


def test_a_model_in_train_mode_has_its_dropout_off(tiny_model_dir, tiny_tokenizer):
    model = model_of(tiny_model_dir("gpt2"))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    trainer = HybridTrainer(model.train(), tiny_tokenizer, device="cpu")
    batch = batch_of()
    assert loss_of(trainer, batch) == loss_of(trainer, batch)
    prompts = filled(PROMPTS, PAD)
    stats = trainer.ppo_step(prompts, trainer.respond_to_batch(prompts), [1.0, 0.0, 0.5])
    assert stats["kl/k1_nats"] == pytest.approx(0, abs=1e-5)


def test_a_quantised_model_and_one_without_weights(tiny_model_dir, tiny_tokenizer):
    model = model_of(tiny_model_dir())
    model.is_quantized = True
    with pytest.raises(ModelError, match="the model is quantised"):
        HybridTrainer(model, tiny_tokenizer, device="cpu")
    with pytest.raises(ModelError, match="on the device 'meta'"):
        HybridTrainer(model_of(tiny_model_dir()).to("meta"), tiny_tokenizer, device="cpu")
    frozen = model_of(tiny_model_dir()).requires_grad_(False)
    with pytest.raises(ModelError, match="no weight of the model trains"):
        HybridTrainer(frozen, tiny_tokenizer, device="cpu")


def test_a_model_that_is_no_causal_lm(tiny_model_dir, tiny_tokenizer):
    body = model_of(tiny_model_dir()).model
    with pytest.raises(ModelError, match="base_model_name: needs .* got a LlamaModel"):
        HybridTrainer(body, tiny_tokenizer, device="cpu")
