"""Computing in 16 bits on float32 master weights: dtypes, loss scale, PPO, what is saved."""

import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from typer.testing import CliRunner

import mht.cli.main
from mht.algorithms.ppo.ratio import RatioError
from mht.algorithms.sft import batch_loss
from mht.assets.fetch import _stored_dtype
from mht.checks.preflight import check
from mht.config import Config, load_config
from mht.core.errors import ConfigError, ModelError
from mht.data.examples.example import collate_sft
from mht.models.loading import load_causal_lm
from mht.models.policy import Policy
from mht.models.precision import has_bfloat16_units, resolve_dtype
from mht.optim.masters import Masters
from mht.optim.optimizers import make_optimizer, make_scheduler
from mht.optim.updater import Diverged, Updater
from mht.training.hybrid import HybridTrainer
from tests.support.ppo import ppo_step
from tests.support.training import examples, hybrid_config, responses_of, rollout_of

CPU = torch.device("cpu")
HALF = [torch.bfloat16, torch.float16]
STEP = 2.0**-12  # of 1.0: lost in bfloat16 and in float16


def updater(parameters, lr=0.1, scaler=None, scheduler=None, kind="sgd"):
    masters = Masters(parameters)
    optimizer = make_optimizer(masters, {"type": kind}, lr)
    made = make_scheduler(optimizer, scheduler, 10)
    return Updater(masters, optimizer, made, 1e9, scaler)


def parameter(*values, dtype=torch.bfloat16):
    return torch.nn.Parameter(torch.tensor(values, dtype=dtype))


def trainer_of(folder, tokenizer, *, dtype="bfloat16", unfrozen="all", lr=1e-3, **settings):
    """float16 is refused by name on a CPU, but a loaded model may have it."""
    config = hybrid_config(**{"lr": lr} | settings)
    start = load_causal_lm(folder, dtype=dtype) if dtype == "float16" else folder
    return HybridTrainer(
        start,
        tokenizer,
        examples(tokenizer, 8),
        config=config,
        num_layers_unfrozen=unfrozen,
        device="cpu",
        dtype=dtype,
    )


# -- the dtype --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ({"avx2": True, "avx512_f": True}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bfloat16"),
        ({"neon": True, "bf16": True}, "bfloat16"),
        ({"neon": True, "bf16": False}, "float32"),
    ],
)
def test_auto_is_what_the_processor_has_units_for(monkeypatch, units, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    assert has_bfloat16_units(CPU) == (expected == "bfloat16")
    assert resolve_dtype("auto", CPU) == expected
    assert resolve_dtype("float32", CPU) == "float32"
    assert resolve_dtype("bfloat16", CPU) == "bfloat16"


def test_devices_without_units_of_their_own():
    assert resolve_dtype("auto", torch.device("mps")) == "float32"
    assert resolve_dtype("float16", torch.device("cuda")) == "float16"


def test_what_can_not_be_had_is_refused_with_its_path():
    with pytest.raises(ConfigError, match=r"model\.dtype: float16 needs a GPU.* set bfloat16 or"):
        resolve_dtype("float16", CPU)
    with pytest.raises(ConfigError, match=r"model\.dtype: should be one of .*, got 'half'"):
        resolve_dtype("half", CPU)


def settings_with(tmp_path, **model):
    """params.yaml with other values in its model section, and where it is."""
    data = YAML(typ="safe").load(Path("params.yaml").read_text(encoding="utf-8"))
    data["model"] |= model
    data["base"]["device"] = "cpu"
    file = tmp_path / "params.yaml"
    file.write_text(json.dumps(data))
    return file


def test_float16_on_a_processor_is_refused_by_the_check(tmp_path):
    file = settings_with(tmp_path, dtype="float16")
    done = CliRunner().invoke(mht.cli.main.commands, ["check", str(file)])
    assert done.exit_code == 2
    assert f"1 problem in {file}\n  model.dtype: float16 needs a GPU" in done.stderr


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
def test_the_other_dtypes_pass_the_check(tmp_path, monkeypatch, dtype):
    config = load_config(settings_with(tmp_path, dtype=dtype, gradient_checkpointing=True))
    assert isinstance(config, Config)
    check(config)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    said = (
        CliRunner().invoke(mht.cli.main.commands, ["check", str(tmp_path / "params.yaml")]).stdout
    )
    assert ("layers train, computes in bfloat16\n" in said) == (dtype != "float32")
    full = dtype == "float32"
    assert _stored_dtype(config.model) == (torch.float32 if full else "auto")


def test_the_trainer_refuses_float16_before_it_loads_anything():
    with pytest.raises(ConfigError, match=r"model\.dtype: float16"):
        HybridTrainer("no/such/folder", device="cpu", dtype="float16")


# -- masters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_small_steps_add_up_in_the_masters(dtype):
    """By hand: 16 steps of 2^-12 from 1 are 2^-8, one step of a bfloat16 below 1."""
    alone, led = parameter(1.0, dtype=dtype), parameter(1.0, dtype=dtype)
    optimizer = make_optimizer([alone], {"type": "sgd"}, STEP)
    u = updater([led], lr=STEP)
    for _ in range(16):
        optimizer.zero_grad()
        alone.sum().backward()
        optimizer.step()
        u.step(led.sum())
    assert alone.item() == 1.0
    assert led.item() == u.masters.of(led).item() == 1 - 16 * STEP
    assert led.dtype == dtype
    assert u.masters.of(led).dtype == torch.float32


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_gradients_add_up_in_float32_and_do_not_stay_in_16_bits(dtype):
    p = parameter(1.0, dtype=dtype)
    u = updater([p], lr=1.0)
    parts = [p.sum(), *(STEP * p.sum() for _ in range(4))]
    update = u.step_in_parts([(part, i) for i, part in enumerate(parts)])  # in 16 bits the sum is 1
    assert update.grad_norm == 1 + 4 * STEP
    assert update.reports == [0, 1, 2, 3, 4]
    assert u.masters.of(p).item() == -4 * STEP
    assert p.grad is None


def test_clipping_is_of_the_masters_gradients():
    p = parameter(3.0, 4.0)
    u = updater([p], lr=1.0)
    u.max_grad_norm = 1.0
    assert u.step((p * p.detach()).sum()).grad_norm == pytest.approx(5.0)
    assert u.masters.of(p).tolist() == pytest.approx([2.4, 3.2], abs=1e-5)


def test_float32_parameters_are_their_own_masters():
    p, half = parameter(1.0, dtype=torch.float32), parameter(1.0)
    masters = Masters([p, half])
    assert masters.of(p) is p
    assert list(masters.rounded) == [half]
    assert not masters.needs_loss_scale
    assert Masters([parameter(1.0, dtype=torch.float16)]).needs_loss_scale


@pytest.mark.parametrize("kind", ["adamw", "adafactor", "rmsprop"])
def test_the_optimisers_state_is_float32(kind):
    p = parameter(1.0, -2.0)
    u = updater([p], kind=kind)
    u.step((p * p.detach()).sum())
    (state,) = u.optimizer.state.values()
    assert {v.dtype for v in state.values() if torch.is_tensor(v)} == {torch.float32}


# -- the loss scale of float16 ----------------------------------------------------------------


def scaler(init=2.0**16):
    return torch.amp.GradScaler("cpu", init_scale=init)


def test_a_loss_scale_saves_small_gradients():
    """A gradient of 1e-9 is 0 in float16; scaled by 2^16 it is 6.6e-5."""
    plain, scaled = parameter(1.0, dtype=torch.float16), parameter(1.0, dtype=torch.float16)
    for p, s in ((plain, None), (scaled, scaler())):
        u = updater([p], lr=1e6, scaler=s)
        u.step((p.sum() * 1e-3).float() * 1e-6)
        moved = 1 - u.masters.of(p).item()
        assert moved == pytest.approx(1e-3 if s else 0.0, rel=0.01)


def test_a_step_that_overflows_is_left_out_and_told():
    p = parameter(1.0, dtype=torch.float16)
    u = updater([p], lr=1e-3, scaler=scaler(2.0**14), scheduler={"type": "linear"})
    rate = u.lr
    update = u.step(8 * p.sum())  # 8 * 2^14 is more than float16's 65504
    assert update.grad_norm == 0.0
    assert update.scale_figures == {"optim/loss_scale": 2.0**13, "optim/skipped": 1.0}
    assert p.item() == u.masters.of(p).item() == 1.0
    assert u.lr == rate, "a step that was not made is none of the schedule's"
    update = u.step(p.sum())
    assert update.figures == {"optim/lr": rate, "optim/grad_norm": 1.0, **update.scale_figures}
    assert update.scale_figures == {"optim/loss_scale": 2.0**13, "optim/skipped": 0.0}
    assert u.masters.of(p).item() == pytest.approx(0.999)
    assert u.lr < rate


def test_without_a_loss_scale_there_are_no_figures_of_it():
    p = parameter(1.0)
    assert updater([p]).step(p.sum()).scale_figures == {}


class Overflow(torch.autograd.Function):
    """A finite loss with a gradient that no scale helps."""

    @staticmethod
    def forward(ctx, x):
        return x.float().sum()

    @staticmethod
    def backward(ctx, grad):
        return torch.full((1,), torch.inf, dtype=torch.float16)


def test_a_loss_scale_that_collapses_stops_the_run():
    p = parameter(1.0, dtype=torch.float16)
    u = updater([p], scaler=scaler(4.0))
    assert [u.step(Overflow.apply(p)).grad_norm for _ in range(2)] == [0.0, 0.0]
    with pytest.raises(Diverged, match=r"loss scale down to 0\.5.* model\.dtype to bfloat16"):
        u.step(Overflow.apply(p))
    assert p.item() == 1.0


def test_a_loss_that_is_not_finite_is_no_matter_of_scaling():
    p = parameter(1.0, dtype=torch.float16)
    with pytest.raises(Diverged, match="the loss is nan"):
        updater([p], scaler=scaler()).step(p.sum() * torch.nan)


# -- what is loaded and saved -----------------------------------------------------------------


def test_nothing_is_lost_between_two_trainers(tiny_model_dir, tiny_tokenizer, tmp_path):
    """The masters begin with the folder's float32, move, are saved and begin again, bit for bit."""
    folder = tiny_model_dir(layers=3)
    first = trainer_of(folder, tiny_tokenizer, unfrozen=1, lr=1e-5)
    model = first.policy.model
    own = dict(load_causal_lm(folder).named_parameters())
    for name, master in first.masters.state_dict(model).items():
        assert torch.equal(master, own[name]), "more bits than the model computes with"
    first.train([(2, 1)])
    first.save(tmp_path)
    second = trainer_of(tmp_path, tiny_tokenizer, unfrozen=1)
    for a, b in zip(first.masters, second.masters, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert torch.equal(a, b)
    for a, b in zip(model.parameters(), second.policy.model.parameters(), strict=True):
        assert a.dtype == torch.bfloat16
        assert torch.equal(a, b), "what computes is the same too"


def test_frozen_weights_are_saved_as_they_compute(tiny_model_dir, tiny_tokenizer, tmp_path):
    trainer = trainer_of(tiny_model_dir(layers=3), tiny_tokenizer, unfrozen=1)
    trainer.train([(1, 0)])
    trainer.save(tmp_path)
    for name, value in load_file(tmp_path / "model.safetensors").items():
        trains = trainer.policy.model.get_parameter(name).requires_grad
        assert value.dtype == (torch.float32 if trains else torch.bfloat16), name
    loaded = load_causal_lm(tmp_path, dtype="bfloat16").state_dict()
    for name, value in trainer.policy.model.state_dict().items():
        assert torch.equal(loaded[name], value)


def test_tied_weights_are_saved_once(tiny_model_dir, tiny_tokenizer, tmp_path):
    """GPT-2's head is its embedding: one master, one tensor in the file."""
    trainer = trainer_of(tiny_model_dir("gpt2"), tiny_tokenizer)
    trainer.train([(1, 0)])
    trainer.save(tmp_path)
    files = load_file(tmp_path / "model.safetensors")
    assert {v.dtype for v in files.values()} == {torch.float32}
    again = load_causal_lm(tmp_path)
    assert again.lm_head.weight is again.transformer.wte.weight
    embedding = trainer.policy.model.transformer.wte.weight
    assert torch.equal(again.lm_head.weight, trainer.masters.of(embedding))


# -- training ---------------------------------------------------------------------------------


def losses(trainer, steps=12):
    return [trainer.next_step("sft")["sft/loss"] for _ in range(steps)]


def test_sft_in_bfloat16_follows_float32(tiny_model_dir, tiny_tokenizer):
    full, half = (
        losses(trainer_of(tiny_model_dir(), tiny_tokenizer, dtype=dtype, lr=3e-3))
        for dtype in ("float32", "bfloat16")
    )
    assert full[-1] < full[0] - 1
    assert half == pytest.approx(full, abs=0.05)


def test_small_rates_move_nothing_without_masters(tiny_model_dir, tiny_tokenizer):
    """A rate of 1e-5, where weights are of 0.2 and their neighbours 1e-3 apart."""
    model = load_causal_lm(tiny_model_dir(), dtype="bfloat16")
    weights = [p for p in model.parameters() if p.dim() == 2]
    before = [p.detach().clone() for p in weights]
    optimizer = make_optimizer(weights, {"type": "adamw"}, 1e-5)
    led = trainer_of(tiny_model_dir(), tiny_tokenizer, lr=1e-5)
    start = [m.detach().clone() for m in led.masters]
    batch = collate_sft(examples(tiny_tokenizer, 4), 3)
    for _ in range(5):
        optimizer.zero_grad()
        batch_loss(model, batch).backward()
        optimizer.step()
        led.sft_step(batch)
    big = [(p.detach() != b)[b.abs() > 0.01].any() for p, b in zip(weights, before, strict=True)]
    assert not any(big)
    moved = [(m - s).abs().max().item() for m, s in zip(led.masters, start, strict=True)]
    assert statistics.median(moved) == pytest.approx(5e-5, rel=0.2)  # Adam: the rate a step


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_a_policy_in_16_bits_learns_a_toy_reward(tiny_model_dir, tiny_tokenizer, dtype):
    """The share of tokens below 200, half of the vocabulary."""
    trainer = trainer_of(
        tiny_model_dir(),
        tiny_tokenizer,
        dtype=dtype,
        lr=1e-2,
        batch_size=32,
        minibatch_size=16,
        kl_coef=0.0,
        response_tokens=4,
        epochs=4,
    )
    shares = []
    for _ in range(8):
        rollout = trainer.responder.respond(examples(tiny_tokenizer, 32), trainer.generator)
        below = (rollout.response_ids < 200) & rollout.response_mask
        shares.append(float((below.sum(1) / rollout.lengths).mean()))
        stats = ppo_step(trainer.ppo, rollout, (below.sum(1) / rollout.lengths).tolist())
    assert statistics.mean(shares[-3:]) > statistics.mean(shares[:3]) + 0.15, shares
    assert ("optim/loss_scale" in stats) == (dtype == "float16")


# -- PPO's ratio ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("unfrozen", [1, "all"])
def test_nothing_has_changed_before_the_first_update(
    tiny_model_dir, tiny_tokenizer, dtype, unfrozen
):
    """Against the sampler rounding shows; scored anew it does not, neither in ratio nor in KL."""
    trainer = trainer_of(
        tiny_model_dir(layers=3),
        tiny_tokenizer,
        dtype=dtype,
        unfrozen=unfrozen,
        epochs=1,
        minibatch_size=8,
    )
    rollout = trainer.responder.respond(examples(tiny_tokenizer, 8), trainer.generator)
    rounded = rollout.logprobs + 0.01 * torch.where(rollout.response_ids % 2 == 0, 1, -1)
    rollout = replace(rollout, logprobs=rounded)  # as a real model's are
    stats = ppo_step(trainer.ppo, rollout, [0.0] * 8)
    assert stats["kl/k3_nats"] == pytest.approx(0, abs=1e-6)
    assert stats["policy/ratio_max"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_another_temperature_stops_the_run_in_16_bits(tiny_model_dir, tiny_tokenizer, dtype):
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer, dtype=dtype)
    trainer.responder.decoding["temperature"] = 0.8
    rollout = trainer.responder.respond(examples(tiny_tokenizer, 8), trainer.generator)
    with pytest.raises(RatioError, match=r"mean \|ratio - 1\| is .* on the rollout, before any"):
        ppo_step(trainer.ppo, rollout, [0.0] * 8)


def test_a_tolerance_of_ones_own(tiny_model_dir, tiny_tokenizer):
    """A sampler that is 0.05 nats off: by hand and not by rounding, which processors differ in."""
    trainer = trainer_of(tiny_model_dir(), tiny_tokenizer, ratio_tolerance=1e-3)
    rollout = trainer.responder.respond(examples(tiny_tokenizer, 8), trainer.generator)
    exact = trainer.policy.score(rollout).logprobs
    rollout = replace(rollout, logprobs=exact.detach() - 0.05)
    with pytest.raises(RatioError, match=r"is 0\.051.* over ppo\.ratio_tolerance 0\.001"):
        ppo_step(trainer.ppo, rollout, [0.0] * 8)
    ppo_step(trainer_of(tiny_model_dir(), tiny_tokenizer).ppo, rollout, [0.0] * 8)
    given = rollout_of([[40, 41]] * 8, responses_of(rollout))
    updates = trainer.ppo.updates
    updates.config = updates.config.model_copy(update={"epochs": 1, "minibatch_size": 8})
    trainer.ppo.check_ratio.tolerance = 0.05
    assert given.logprobs is None, "a user's own responses have no sampler to compare with"
    ppo_step(trainer.ppo, given, [0.0] * 8)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2", "gemma2"])
def test_trunk_and_reference_in_bfloat16(tiny_model_dir, kind):
    """The replayed trunk gives what the whole model gives, and the reference is the policy."""
    policy = Policy(load_causal_lm(tiny_model_dir(kind, layers=4), dtype="bfloat16"), 1)
    rollout = rollout_of([[40, 41, 42], [50]], [[70, 71], [80, 81, 82]], left=2)
    whole = policy.score(rollout, with_entropy=True)
    replayed = policy.with_trunk(rollout)
    assert replayed.trunk.dtype == torch.bfloat16
    again = policy.score(replayed, with_entropy=True)
    for name in ("logprobs", "values", "entropies"):
        assert getattr(again, name).dtype == torch.float32
        torch.testing.assert_close(getattr(again, name), getattr(whole, name), atol=1e-6, rtol=0)
    torch.testing.assert_close(policy.ref_logprobs(replayed), whole.logprobs, atol=0.05, rtol=0)
    exact = Policy(load_causal_lm(tiny_model_dir(kind, layers=4)), 1).score(rollout)
    torch.testing.assert_close(whole.logprobs, exact.logprobs, atol=0.3, rtol=0.05)
    assert policy.value_head.weight.dtype == torch.float32


def test_a_device_that_is_not_there_is_no_question_of_dtype(tmp_path):
    config = load_config(settings_with(tmp_path, dtype="float16"))
    base = config.base.model_copy(update={"device": "cuda:99"})
    with pytest.raises(ModelError, match=r"base\.device: 'cuda:99'"):
        check(config.model_copy(update={"base": base}))
