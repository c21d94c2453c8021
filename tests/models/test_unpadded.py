"""Passes without padding: the numbers of the padded ones, from layers that never see padding."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mht.config import LoRAConfig
from mht.models.context import limit_context
from mht.models.hf import logits as logits_module
from mht.models.hf.layers import decoder_layers
from mht.models.hf.unpadded import FAMILIES, layout_of, without_padding
from mht.models.policy import Policy
from mht.models.recompute import recompute_layers
from tests.support.training import PAD, critic, model_of, rollout_of

LENGTHS = [(30, 5), (3, 24), (1, 1), (19, 9)]  # of prompts and responses; Gemma's window is 16
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def rollout():
    generator = torch.Generator().manual_seed(0)
    prompts, responses = (
        [torch.randint(10, 400, (n,), generator=generator).tolist() for n in lengths]
        for lengths in zip(*LENGTHS, strict=True)
    )
    return rollout_of(prompts, responses, left=2, right=3)


def policy_of(folder, unfrozen, **options):
    policy = Policy(model_of(folder), unfrozen, **options)
    generator = torch.Generator().manual_seed(0)
    for parameter in policy.parameters():  # zeros hide what is behind them
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return policy


def learnt(policy, rollout):
    """What PPO takes of a rollout, and the gradients of a loss of all of it."""
    rollout = policy.with_trunk(rollout)
    scores = policy.score(rollout, temperature=0.7, with_entropy=True)
    loss = scores.logprobs.mean() + scores.values.square().mean() + scores.entropies.mean()
    names = [f"p{i}" for i, _ in enumerate(policy.parameters())]
    grads = torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True)
    said = {"logprobs": scores.logprobs, "values": scores.values, "entropies": scores.entropies}
    said["ref"] = policy.ref_logprobs(rollout, temperature=0.7)
    return said | {n: g for n, g in zip(names, grads, strict=True) if g is not None}


def assert_as_padded(monkeypatch, policy, rollout):
    found = learnt(policy, rollout)
    with monkeypatch.context() as patch:
        patch.setattr(logits_module, "layout_of", lambda *_: None)
        expected = learnt(policy, rollout)
    assert found.keys() == expected.keys() and len(found) > 4
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **CLOSE)


def rows_seen(policy, rollout):
    """The shapes of what the top layer is given."""
    shapes = []
    layer = decoder_layers(policy.model)[-1]
    hook = layer.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape[:2]))
    policy.score(rollout)
    hook.remove()
    return shapes


@pytest.mark.parametrize("unfrozen", [1, "all"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_scores_and_gradients_are_those_of_the_padded_pass(
    tiny_model_dir, monkeypatch, rollout, family, unfrozen
):
    """Frozen layers replayed too; Gemma's windows slide and its scores are capped."""
    policy = policy_of(tiny_model_dir(family), unfrozen)
    tokens = sum(prompt + response - 1 for prompt, response in LENGTHS)
    assert rows_seen(policy, rollout) == [(1, tokens)]
    assert_as_padded(monkeypatch, policy, rollout)


@pytest.mark.parametrize("kind", ["lora", "branch", "mlp", "context_window"])
def test_every_kind_of_policy(tiny_model_dir, monkeypatch, rollout, kind):
    options = {
        "lora": {"lora": LoRAConfig(r=2, alpha=4)},
        "branch": {"value_head": critic(type="branch", num_layers=1)},
        "mlp": {"value_head": critic(type="mlp")},
        "context_window": {},
    }[kind]
    folder = tiny_model_dir("llama", layers=3)
    policy = policy_of(folder, 2, **options)
    if kind == "context_window":
        model = model_of(folder)
        limit_context(model, 20)
        policy = Policy(model, 2)
    assert rows_seen(policy, rollout)[0][0] == 1
    assert_as_padded(monkeypatch, policy, rollout)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_a_layer_that_is_computed_again_gives_the_same_gradients(tiny_model_dir, rollout, family):
    """Bit for bit, though the second computation comes after the pass has ended."""
    plain, thrifty = (policy_of(tiny_model_dir(family), "all") for _ in range(2))
    recompute_layers(thrifty.model)
    assert rows_seen(thrifty, rollout)[0][0] == 1
    first, second = learnt(plain, rollout), learnt(thrifty, rollout)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_padding_holds_changes_nothing(tiny_model_dir, rollout):
    policy = policy_of(tiny_model_dir("llama"), 1)
    other = replace(
        rollout,
        prompt_ids=rollout.prompt_ids.masked_fill(~rollout.prompt_mask, 77),
        response_ids=rollout.response_ids.masked_fill(~rollout.response_mask, 88),
    )
    assert (other.prompt_ids == PAD).sum() < (rollout.prompt_ids == PAD).sum()
    first, again, changed = (learnt(policy, r) for r in (rollout, rollout, other))
    for name, value in first.items():
        assert torch.equal(again[name], value) and torch.equal(changed[name], value)


def test_the_model_has_its_own_attention_again(tiny_model_dir, rollout):
    """Also after an error inside the pass."""
    model = model_of(tiny_model_dir("gemma2"))
    before = model.config._attn_implementation
    layout = layout_of(model, rollout.response_mask, rollout.attention_mask)
    with pytest.raises(ZeroDivisionError), without_padding(model, layout):
        assert model.config._attn_implementation != before
        1 / 0  # noqa: B018
    assert model.config._attn_implementation == before


def test_where_padding_stays(tiny_model_dir, rollout):
    """Without padding there is nothing to leave out; of other families too little is known."""
    model, everywhere = model_of(tiny_model_dir("llama")), torch.ones(3, 5, dtype=torch.bool)
    assert layout_of(model, everywhere, everywhere) is None
    given = rollout.response_mask, rollout.attention_mask
    assert layout_of(model, *given) is not None
    model.config.model_type = "bloom"
    assert layout_of(model, *given) is None
