"""Value heads: zero at first, what their loss reaches, saving, and PPO with each."""

import statistics

import pytest
import torch
from safetensors import safe_open

from mht import HybridTrainer
from mht.config import LoRAConfig
from mht.core.errors import ModelError
from mht.losses import masked_mean
from mht.models.hf.layers import decoder_layers
from mht.models.policy import Policy
from mht.models.value.files import VALUE_HEAD_FILE
from tests.support.ppo import PROMPTS as PPO_PROMPTS
from tests.support.ppo import SCORES, ppo_on, ppo_step, sampled
from tests.support.training import (
    EOS,
    KINDS,
    critic,
    hybrid_config,
    model_of,
    responses_of,
    rollout_of,
)

PROMPTS = [[40, 41, 42, 43], [50], [60, 61]]
RESPONSES = [[70, 71, EOS], [80, 81, 82, 83, 84], [90]]
HEADS = {
    "linear": {},
    "linear, detached": {"detach": True},
    "mlp": {"type": "mlp"},
    "mlp, detached": {"type": "mlp", "hidden_size": 5, "activation": "tanh", "detach": True},
    "branch": {"type": "branch"},
}
KEPT = {"linear, detached", "mlp, detached", "branch"}  # the language model is left alone


@pytest.fixture(params=HEADS.values(), ids=HEADS.keys())
def head(request):
    return critic(**request.param)


def policy_of(folder, head, unfrozen=2, lora=None):
    torch.manual_seed(0)  # of an MLP's first layer
    return Policy(model_of(folder), unfrozen, value_head=head, lora=lora)


def disturb(policy):
    torch.manual_seed(0)
    for p in policy.value_head.parameters():
        p.data.normal_(0, 0.3)


# -- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("unfrozen", [2, "all"])
def test_values_are_zero_at_first_and_padding_leaves_them_alone(tiny_model_dir, head, unfrozen):
    policy = policy_of(tiny_model_dir(layers=4), head, unfrozen)
    rollout = rollout_of(PROMPTS, RESPONSES)
    assert (policy.score(rollout).values == 0).all()
    disturb(policy)
    values = policy.score(rollout).values.detach()
    assert (values[rollout.response_mask] != 0).all()
    assert (values[~rollout.response_mask] == 0).all()
    padded = rollout_of(PROMPTS, RESPONSES, left=3, pad=77)
    torch.testing.assert_close(policy.score(padded).values.detach(), values, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unfrozen", [3, "all"])
def test_an_untouched_branch_computes_what_the_policy_computes(tiny_model_dir, kind, unfrozen):
    """Its map on the policy's own last hidden states gives the same: so it is the same layers."""
    folder = tiny_model_dir(kind, layers=4)
    branch = policy_of(folder, critic(type="branch", num_layers=2), unfrozen)
    plain = policy_of(folder, critic(), unfrozen)
    weight = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    branch.value_head.output.weight.data.copy_(weight)
    plain.value_head.weight.data.copy_(weight)
    rollout = rollout_of(PROMPTS, RESPONSES, left=1)
    expected = plain.score(rollout).values
    for each in (rollout, branch.with_trunk(rollout)):
        torch.testing.assert_close(branch.score(each).values, expected, atol=1e-4, rtol=1e-4)


def test_a_token_is_not_seen_by_its_own_value(tiny_model_dir, head):
    policy = policy_of(tiny_model_dir(layers=4), head)
    disturb(policy)
    changed = [[99, *r[1:]] for r in RESPONSES]
    a, b = (policy.score(rollout_of(PROMPTS, r)).values.detach() for r in (RESPONSES, changed))
    torch.testing.assert_close(a[:, 0], b[:, 0], atol=1e-6, rtol=0)
    assert (a[0, 1] - b[0, 1]).abs() > 1e-4


def test_values_of_a_sampled_rollout_are_those_of_a_pass(tiny_model_dir, head):
    policy = policy_of(tiny_model_dir(layers=4), head)
    disturb(policy)
    rollout = sampled(ppo_on(policy))
    torch.testing.assert_close(
        policy.sampled_scores(rollout).values,
        policy.score(rollout).values.detach(),
        atol=1e-4,
        rtol=1e-4,
    )
    assert torch.equal(policy.sampled_scores(rollout).logprobs, rollout.logprobs)


# -- gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("unfrozen", [2, "all"])
@pytest.mark.parametrize("lora", [None, LoRAConfig(r=2)], ids=["plain", "lora"])
@pytest.mark.parametrize("name", HEADS)
def test_what_the_value_loss_reaches(tiny_model_dir, name, unfrozen, lora):
    head = critic(**HEADS[name])
    policy = policy_of(tiny_model_dir(layers=4), head, unfrozen, lora)
    disturb(policy)
    for p in policy.model.parameters():
        if p.requires_grad and lora:
            p.data.normal_(0, 0.2)
    rollout = rollout_of(PROMPTS, RESPONSES)
    rollout = policy.with_trunk(rollout)
    values = policy.score(rollout).values
    masked_mean((values - 1).square(), rollout.response_mask).backward()
    assert all(p.grad is not None and p.grad.any() for p in policy.value_head.parameters())
    reached = {n for n, p in policy.model.named_parameters() if p.grad is not None and p.grad.any()}
    if name in KEPT:
        assert not reached
    else:
        trained = {n for n, p in policy.model.named_parameters() if p.requires_grad}
        heads = {"lm_head.weight"}  # of no use to a value
        assert reached == trained - heads
    assert all(p.grad is None for p in policy.reference.parameters() if not p.requires_grad)


def test_a_branch_trains_layers_of_its_own(tiny_model_dir):
    policy = policy_of(tiny_model_dir(layers=4), critic(type="branch", num_layers=2))
    own = {id(p) for p in policy.value_head.parameters()}
    others = {id(p) for m in (policy.model, policy.reference) for p in m.parameters()}
    assert not own & others
    layer = list(decoder_layers(policy.model))[-1]
    assert len(own) == 2 * len(list(layer.parameters())) + 1 + 2  # and the norm, and the map
    assert len(list(policy.parameters())) == len({id(p) for p in policy.parameters()})


@pytest.mark.parametrize(
    ("unfrozen", "count", "message"),
    [
        ("all", 4, "num_layers: 4 leaves nothing below the branch in a model of 4"),
        (2, 3, r"num_layers: 3 is more than the 2 that model\.num_layers_unfrozen leaves"),
    ],
)
def test_a_branch_that_does_not_fit(tiny_model_dir, unfrozen, count, message):
    head = critic(type="branch", num_layers=count)
    with pytest.raises(ModelError, match=rf"ppo\.value_head\.{message}"):
        policy_of(tiny_model_dir(layers=4), head, unfrozen)


# -- saving -------------------------------------------------------------------------------------


def test_save_and_restore(tiny_model_dir, tiny_tokenizer, tmp_path, head):
    policy = policy_of(tiny_model_dir(layers=4), head)
    disturb(policy)
    policy.save(tmp_path, tiny_tokenizer)
    again = policy_of(tmp_path, head)
    assert again.load_value_head(tmp_path)
    rollout = rollout_of(PROMPTS, RESPONSES)
    assert torch.equal(again.score(rollout).values, policy.score(rollout).values)


def test_a_linear_heads_file_is_two_tensors_and_nothing_else(
    tiny_model_dir, tiny_tokenizer, tmp_path
):
    """The bytes that folders of before the other kinds have."""
    policy_of(tiny_model_dir(), critic(), 1).save(tmp_path, tiny_tokenizer)
    with safe_open(tmp_path / VALUE_HEAD_FILE, "pt") as file:
        assert (set(file.keys()), file.metadata()) == ({"weight", "bias"}, None)


OTHERS = [
    ({}, {"type": "mlp"}),
    ({"type": "mlp"}, {}),
    ({"type": "mlp"}, {"type": "mlp", "hidden_size": 5}),
    ({"type": "mlp"}, {"type": "mlp", "activation": "gelu"}),
    ({"type": "branch", "num_layers": 1}, {"type": "branch", "num_layers": 2}),
    ({"type": "branch"}, {"detach": True}),
]


@pytest.mark.parametrize(("saved", "wanted"), OTHERS, ids=str)
def test_a_head_of_another_kind_is_left_with_a_word(
    tiny_model_dir, tiny_tokenizer, tmp_path, capsys, saved, wanted
):
    policy = policy_of(tiny_model_dir(layers=4), critic(**saved))
    policy.save(tmp_path / "fresh", tiny_tokenizer)
    disturb(policy)
    policy.save(tmp_path / "trained", tiny_tokenizer)
    capsys.readouterr()
    other = policy_of(tmp_path / "trained", critic(**wanted))
    assert not other.load_value_head(tmp_path / "fresh")
    assert "another kind" not in capsys.readouterr().err, "an untrained head is no loss"
    assert not other.load_value_head(tmp_path / "trained")
    assert "another kind or size" in capsys.readouterr().err
    assert (other.score(rollout_of(PROMPTS, RESPONSES)).values == 0).all()


def test_detach_keeps_a_heads_file(tiny_model_dir, tiny_tokenizer, tmp_path):
    """What the loss reaches is not part of what a head is."""
    policy = policy_of(tiny_model_dir(), critic(), 1)
    disturb(policy)
    policy.save(tmp_path, tiny_tokenizer)
    assert policy_of(tmp_path, critic(detach=True), 1).load_value_head(tmp_path)


def test_a_trainer_takes_the_head_of_its_settings(tiny_model_dir, tiny_tokenizer, tmp_path):
    """From the folder of an SFT run, whose head is a linear one that has not trained."""
    folder = tiny_model_dir(layers=4)
    HybridTrainer(folder, tiny_tokenizer, device="cpu").save(tmp_path)
    config = hybrid_config(value_head={"type": "branch"})
    trainer = HybridTrainer(tmp_path, tiny_tokenizer, config=config, device="cpu")
    assert len(trainer.policy.value_head.layers) == 2


# -- PPO ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear, detached", "mlp", "branch"])  # linear: test_ppo.py
def test_the_reward_rises_with_each(tiny_model_dir, name):
    """The share of tokens below 200, half of the vocabulary."""
    head = critic(**HEADS[name] | ({"num_layers": 1} if name == "branch" else {}))
    policy = policy_of(tiny_model_dir(), head, 1)
    ppo = ppo_on(policy, lr=3e-2, kl_coef=0.0, minibatch_size=8)
    shares = []
    for step in range(20):
        rollout = sampled(ppo, seed=step, prompts=PPO_PROMPTS * 4)
        below = (rollout.response_ids < 200) & rollout.response_mask
        shares.append((below.sum(1) / rollout.lengths).tolist())
        ppo_step(ppo, rollout, shares[-1])
    means = [statistics.mean(s) for s in shares]
    assert statistics.mean(means[-3:]) > statistics.mean(means[:2]) + 0.2, means


def test_each_learns_the_score(tiny_model_dir, head):
    policy = policy_of(tiny_model_dir(layers=3), head)
    ppo = ppo_on(policy, lr=1e-2, kl_coef=0.0, vf_coef=1.0, value_clip_range=None, clip_range=1e-6)
    rollout = sampled(ppo)
    losses = [
        ppo_step(ppo, rollout_of(PPO_PROMPTS, responses_of(rollout)), [2.0] * len(SCORES))[
            "value/loss"
        ]
        for _ in range(10)
    ]
    assert losses[0] > 1.0
    assert losses[-1] < losses[0] / 2
