"""LoRA: what trains, the policy without its adapters as its reference, merged models."""

import builtins
import importlib.util

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from mht.config import LoRAConfig
from mht.core.errors import ConfigError, MissingPackage, ModelError
from mht.data.examples.example import collate_sft
from mht.models.fast.packed import packed_linears
from mht.models.hf.adapter import adapters, merged
from mht.models.hf.layers import decoder_layers
from mht.models.loading import load_causal_lm
from mht.models.policy import Policy
from tests.support import training
from tests.support.training import EOS, KINDS, PAD, examples, model_of, rollout_of

PROMPTS = [[40, 41, 42, 43], [50], [60, 61]]
RESPONSES = [[70, 71, EOS], [80, 81, 82, 83, 84], [90]]
LORA = LoRAConfig(r=2, alpha=4)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def policy_of(folder, unfrozen=2, **options):
    return Policy(model_of(folder), unfrozen, lora=LoRAConfig(**{"r": 2, "alpha": 4} | options))


def disturb(policy):
    """Adapters far from zero, as after much training."""
    torch.manual_seed(0)
    for p in policy.model.parameters():
        if p.requires_grad:
            p.data.normal_(0, 0.2)


def trainer_of(folder, tokenizer, **options):
    return training.trainer_of(folder, tokenizer, **{"lora": {"r": 2, "alpha": 4}} | options)


def trained_names(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


# -- what trains --------------------------------------------------------------------------------


@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_adapters_sit_in_the_layers_that_train(tiny_model_dir, kind, unfrozen):
    policy = policy_of(tiny_model_dir(kind, layers=3), unfrozen)
    counts = [len(adapters(layer)) for layer in decoder_layers(policy.model)]
    each = 4 if kind == "gpt2" else 7  # every linear map
    assert counts == ([each] * 3 if unfrozen == "all" else [0, 0, each])
    assert sum(counts) == len(adapters(policy.model)), "none elsewhere, such as in the head"
    assert all(".lora_A." in n or ".lora_B." in n for n in trained_names(policy.model))
    assert len(trained_names(policy.model)) == 2 * sum(counts)
    assert policy.trunk.depth == (0 if unfrozen == "all" else 2)


def test_chosen_modules_alone(tiny_model_dir):
    policy = policy_of(tiny_model_dir(layers=3), "all", target_modules=["q_proj", "mlp.up_proj"])
    names = {n.split(".lora_")[0].rpartition(".")[2] for n in trained_names(policy.model)}
    assert names == {"q_proj", "up_proj"}
    assert len(adapters(policy.model)) == 6


def test_a_module_that_is_not_there(tiny_model_dir):
    with pytest.raises(
        ModelError, match=r"model\.lora\.target_modules: .* named 'c_attn'; there are .*q_proj"
    ):
        policy_of(tiny_model_dir(), target_modules=["q_proj", "c_attn"])


def test_a_training_step_changes_adapters_and_value_head_alone(tiny_model_dir, tiny_tokenizer):
    trainer = trainer_of(tiny_model_dir(layers=3), tiny_tokenizer, num_layers_unfrozen=2)
    model = trainer.policy.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer.train([(2, 1)])
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == trained_names(model) and changed
    assert trainer.policy.value_head.weight.any()
    mine = [*(p for p in model.parameters() if p.requires_grad)]
    ours = {id(p) for group in trainer.updater.optimizer.param_groups for p in group["params"]}
    assert ours == {id(p) for p in [*mine, *trainer.policy.value_head.parameters()]}


def test_the_scale_is_alpha_over_r_or_its_root(tiny_model_dir):
    plain, stable = policy_of(tiny_model_dir()), policy_of(tiny_model_dir(), use_rslora=True)
    assert {m.scaling["default"] for m in adapters(plain.model)} == {2.0}
    assert {m.scaling["default"] for m in adapters(stable.model)} == {4 / 2**0.5}


def test_sixteen_bit_weights_have_adapters_of_32(tiny_model_dir):
    policy = Policy(load_causal_lm(tiny_model_dir(), dtype="bfloat16"), 1, lora=LORA)
    trained = {p.dtype for p in policy.model.parameters() if p.requires_grad}
    frozen = {p.dtype for p in policy.model.parameters() if not p.requires_grad}
    assert (trained, frozen) == ({torch.float32}, {torch.bfloat16})
    rollout = rollout_of(PROMPTS, RESPONSES)
    disturb(policy)
    policy.score(rollout).logprobs.sum().backward()
    written = {n: p.dtype for n, p in merged(policy.model).named_parameters()}
    exact = {n for n, dtype in written.items() if dtype == torch.float32}
    assert exact == {n for n in written if ".layers.1." in n and "_proj" in n and "weight" in n}


# -- the reference ------------------------------------------------------------------------------


@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_at_first_the_policy_is_its_reference_exactly(tiny_model_dir, kind, unfrozen):
    policy = policy_of(tiny_model_dir(kind, layers=3), unfrozen)
    bare = rollout_of(PROMPTS, RESPONSES)
    for rollout in (bare, policy.with_trunk(bare)):
        own = policy.score(rollout).logprobs.detach()
        assert torch.equal(own, policy.ref_logprobs(rollout))


@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_the_reference_is_the_policy_with_its_adapters_off(tiny_model_dir, kind, unfrozen):
    policy = policy_of(tiny_model_dir(kind, layers=3), unfrozen)
    rollout = rollout_of(PROMPTS, RESPONSES)
    first = policy.ref_logprobs(rollout)
    disturb(policy)
    assert (policy.score(rollout).logprobs - first).abs().max() > 0.01
    assert torch.equal(policy.ref_logprobs(rollout), first)
    for adapter in adapters(policy.model):
        adapter.enable_adapters(False)
    assert torch.equal(policy.score(rollout).logprobs.detach(), first)


def test_there_is_no_second_model(tiny_model_dir, kind):
    policy = policy_of(tiny_model_dir(kind), "all")
    mine, theirs = ({id(p) for p in m.parameters()} for m in (policy.model, policy.reference))
    assert theirs < mine
    assert not adapters(policy.reference)


def test_replay_gives_the_same_scores_and_gradients(tiny_model_dir, kind):
    policy = policy_of(tiny_model_dir(kind, layers=4), 2)
    disturb(policy)
    rollout = rollout_of(PROMPTS, RESPONSES, left=1)
    found = []
    for each in (rollout, policy.with_trunk(rollout)):
        scores = policy.score(each)
        trained = [p for p in policy.model.parameters() if p.requires_grad]
        found.append((scores.logprobs, torch.autograd.grad(scores.logprobs.sum(), trained)))
    (a, slopes_a), (b, slopes_b) = found
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    torch.testing.assert_close(slopes_a, slopes_b, atol=1e-4, rtol=1e-4)


def test_packed_weights_serve_the_maps_below_the_adapters(tiny_model_dir, monkeypatch):
    from mht.models.fast import packed

    if not packed._packs(torch.zeros(2**8, 2**8)):
        pytest.skip("this torch packs nothing")
    monkeypatch.setattr(packed, "SMALLEST", 1)
    policy = policy_of(tiny_model_dir(), "all")
    disturb(policy)
    rollout = rollout_of(PROMPTS, RESPONSES)
    with torch.no_grad():
        plain = policy.score(rollout).logprobs
        with packed_linears(policy.model):
            below = [m.base_layer for m in adapters(policy.model)]
            assert all("forward" in vars(m) for m in below)
            torch.testing.assert_close(policy.score(rollout).logprobs, plain, atol=1e-5, rtol=0)


# -- saving -------------------------------------------------------------------------------------


@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_what_is_saved_is_merged_and_needs_no_peft(
    tiny_model_dir, tiny_tokenizer, tmp_path, kind, unfrozen, monkeypatch
):
    source = tiny_model_dir(kind, layers=3)
    policy = policy_of(source, unfrozen)
    disturb(policy)
    policy.save(tmp_path, tiny_tokenizer)
    plain, saved = (load_file(f / "model.safetensors") for f in (source, tmp_path))
    assert {k: v.shape for k, v in saved.items()} == {k: v.shape for k, v in plain.items()}
    assert not list(tmp_path.glob("adapter*"))
    real = builtins.__import__

    def without_peft(name, *args, **kwargs):
        assert not name.startswith("peft"), "loading asked for peft"
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    monkeypatch.undo()
    ids = torch.tensor([[40, 41, 42, 43, 70, 71]])
    with torch.no_grad():
        mine, theirs = policy.model(input_ids=ids).logits, again(input_ids=ids).logits
        base = policy.reference(input_ids=ids).logits
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert (mine - base).abs().max() > 0.1


def test_a_save_changes_nothing_of_the_training(tiny_model_dir, tiny_tokenizer, tmp_path):
    results = []
    for saves in (False, True):
        trainer = trainer_of(tiny_model_dir(), tiny_tokenizer, num_layers_unfrozen=1)
        trainer.train([(1, 1)])
        if saves:
            trainer.save(tmp_path)
        trainer.train([(1, 1)])
        results.append({n: p.detach() for n, p in trainer.policy.model.named_parameters()})
    assert all(torch.equal(results[0][n], results[1][n]) for n in results[0])


def test_the_next_stage_begins_from_the_merged_model(tiny_model_dir, tiny_tokenizer, tmp_path):
    first = trainer_of(tiny_model_dir(), tiny_tokenizer, lrate=1e-2)
    first.train([(4, 0)])
    first.save(tmp_path)
    second = trainer_of(tmp_path, tiny_tokenizer)
    rollout = rollout_of(PROMPTS, RESPONSES)
    with torch.no_grad():
        before, after = (t.policy.score(rollout).logprobs for t in (first, second))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    assert torch.equal(second.policy.ref_logprobs(rollout), after)


def test_sft_learns_through_adapters(tiny_model_dir, tiny_tokenizer):
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer, lrate=1e-2)
    batch = collate_sft(examples(tiny_tokenizer), PAD)
    losses = [trainer.sft_step(batch) for _ in range(12)]
    assert losses[-1] < losses[0] - 0.5


# -- mistakes -----------------------------------------------------------------------------------


def test_without_peft(tiny_model_dir, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "mht.models.hf.adapter.find_spec", lambda name: None if name == "peft" else find(name)
    )
    with pytest.raises(MissingPackage, match=r"model\.lora needs the package 'peft': pip install"):
        policy_of(tiny_model_dir())


def test_options_that_do_not_fit(tiny_model_dir, tiny_tokenizer):
    with pytest.raises(ConfigError) as caught:
        trainer_of(tiny_model_dir(), tiny_tokenizer, lora={"dropout": 0.1, "r": 0, "rank": 3})
    problems = caught.value.problems
    assert [p.partition(":")[0] for p in problems] == [
        "model.lora.r", "model.lora.dropout", "model.lora.rank",
    ]  # fmt: skip
    assert "must be 0" in problems[1]
