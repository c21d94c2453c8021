"""Gradient checkpointing: the same numbers, and activations that are really dropped."""

import copy

import pytest
import torch
from torch import nn

from mht.algorithms.sft import batch_loss
from mht.core.errors import ModelError
from mht.data.examples.example import collate_sft
from mht.models import recompute as recompute_module
from mht.models.hf.layers import decoder_layers
from mht.models.policy import Policy
from mht.models.recompute import recompute_layers
from mht.training.hybrid import HybridTrainer
from tests.support.training import KINDS, PAD, examples, hybrid_config, model_of, rollout_of

PROMPTS, RESPONSES = [[40, 41, 42], [50]], [[70, 71], [80, 81, 82]]


def policies(make, unfrozen):
    """Two of the same model; the second computes its activations twice."""
    plain, thrifty = Policy(make(), unfrozen), Policy(make(), unfrozen)
    recompute_layers(thrifty.model)
    return plain, thrifty


def with_dropout(kind):
    """A model whose training mode would drop half of everything; OPT by its layers' own flag."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    own = {
        "opt": {"dropout": 0.5, "ffn_dim": 32, "word_embed_proj_dim": 32},
        "gpt2": {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5},
    }[kind]
    config = AutoConfig.for_model(
        kind,
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=PAD,
        **own,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def gradients(policy, loss):
    policy.model.zero_grad()
    loss.backward()
    return {n: p.grad for n, p in policy.model.named_parameters() if p.grad is not None}


def assert_same(plain, thrifty, loss_of):
    losses = [loss_of(policy) for policy in (plain, thrifty)]
    assert losses[0].item() == losses[1].item()
    theirs, ours = (gradients(*pair) for pair in zip((plain, thrifty), losses, strict=True))
    assert theirs.keys() == ours.keys() != set()
    for name, gradient in theirs.items():
        assert torch.equal(gradient, ours[name]), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unfrozen", [1, 2, "all"])
def test_losses_and_gradients_are_the_same_bit_for_bit(
    tiny_model_dir, tiny_tokenizer, kind, unfrozen
):
    plain, thrifty = policies(lambda: model_of(tiny_model_dir(kind, layers=3)), unfrozen)
    batch = collate_sft(examples(tiny_tokenizer, 3), PAD)
    assert_same(plain, thrifty, lambda policy: batch_loss(policy.model, batch))
    rollout = plain.with_trunk(rollout_of(PROMPTS, RESPONSES, left=1))
    assert (rollout.trunk is None) == (unfrozen == "all")
    assert_same(plain, thrifty, lambda policy: policy.score(rollout).logprobs.sum())


@pytest.mark.parametrize("kind", ["opt", "gpt2"])
def test_dropout_stays_off(kind):
    plain, thrifty = policies(lambda: with_dropout(kind), "all")
    rollout = rollout_of(PROMPTS, [[70, 71], [80, 81, 82]])
    assert_same(plain, thrifty, lambda policy: policy.score(rollout).logprobs.sum())
    assert not any(module.training for module in thrifty.model.modules())


def kept_bytes(policy, batch):
    """Of what a forward pass keeps for the backward pass, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    seen = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        loss = batch_loss(policy.model, batch)
    assert loss.requires_grad
    return sum(seen.values())


def test_activations_are_dropped_and_computed_again(tiny_model_dir, tiny_tokenizer):
    plain, thrifty = policies(lambda: model_of(tiny_model_dir(layers=6)), "all")
    batch = collate_sft(examples(tiny_tokenizer, 6), PAD)
    assert kept_bytes(thrifty, batch) < kept_bytes(plain, batch) / 3
    calls = {}
    for name, policy in (("plain", plain), ("thrifty", thrifty)):
        calls[name] = []
        hooked = decoder_layers(policy.model)[2].mlp
        hooked.register_forward_pre_hook(lambda *_, seen=calls[name]: seen.append(1))
        batch_loss(policy.model, batch).backward()
    assert (len(calls["plain"]), len(calls["thrifty"])) == (1, 2)
    with torch.no_grad():
        batch_loss(thrifty.model, batch)
    assert len(calls["thrifty"]) == 3, "without gradients there is nothing to compute again"


def test_frozen_layers_and_the_reference_are_left_alone(tiny_model_dir):
    _, thrifty = policies(lambda: model_of(tiny_model_dir(layers=3)), 1)
    *frozen, top = decoder_layers(thrifty.model)
    assert [layer.forward.__name__ for layer in frozen] == ["forward", "forward"], "the trunk's"
    assert top.forward.__func__ is recompute_module._forward
    assert "forward" not in vars(decoder_layers(thrifty.reference)[-1])


def test_a_deep_copy_runs_its_own_weights(tiny_model_dir):
    _, thrifty = policies(lambda: model_of(tiny_model_dir()), "all")
    other = copy.deepcopy(thrifty.model)
    with torch.no_grad():
        for p in thrifty.model.parameters():
            p.zero_()
    ids = torch.tensor([[40, 41, 42]])
    assert thrifty.model(input_ids=ids).logits.abs().max() == 0
    assert other(input_ids=ids).logits.abs().max() > 0


def test_a_model_without_layers_is_refused():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.config = type("C", (), {"get_text_config": lambda self: self})()
            self.config.num_hidden_layers = 2

    with pytest.raises(ModelError, match=r"model\.gradient_checkpointing: Flat has no list"):
        recompute_layers(Flat())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_a_whole_run_ends_the_same(tiny_model_dir, tiny_tokenizer, unfrozen, dtype):
    """SFT and PPO, sampling with the cache included."""
    ends = []
    for checkpointing in (False, True):
        trainer = HybridTrainer(
            tiny_model_dir(),
            tiny_tokenizer,
            examples(tiny_tokenizer, 8),
            config=hybrid_config(),
            num_layers_unfrozen=unfrozen,
            device="cpu",
            dtype=dtype,
            gradient_checkpointing=checkpointing,
        )
        trainer.train([(1, 2)])
        ends.append(list(trainer.masters))
    for a, b in zip(*ends, strict=True):
        assert torch.equal(a, b)
