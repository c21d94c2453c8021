"""Optimisers, schedules and the one optimiser step; the walk through the data."""

import math

import pytest
import torch

from mht.config import OptimizerConfig, SchedulerConfig
from mht.config.optim import CLASSES, OPTIMIZERS, PACKAGES, SCHEDULERS
from mht.core.errors import ConfigError, MissingPackage, UserError
from mht.optim import optimizers as optim
from mht.optim.optimizers import make_optimizer, make_scheduler
from mht.optim.updater import Diverged, Updater
from mht.training.cursor import Cursor
from mht.training.history import History


def parameter(value=1.0):
    return torch.nn.Parameter(torch.tensor([value]))


def updater(p, lr=0.1, scheduler=None, steps=None, max_grad_norm=1e9):
    optimizer = make_optimizer([p], {"type": "sgd"}, lr)
    return Updater([p], optimizer, make_scheduler(optimizer, scheduler, steps), max_grad_norm)


def installed(kind):
    """The kind, or a skip where its package is not there."""
    if kind in PACKAGES:
        pytest.importorskip(PACKAGES[kind][0].split(".")[0])
    return kind


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_optimizer_goes_downhill(kind):
    """A matrix and a vector: none is for matrices alone."""
    for config in ({"OPTIMIZER": installed(kind)}, OptimizerConfig(type=kind)):
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.rand(*shape) + 1) for shape in ((80, 60), (80,))]
        optimizer = make_optimizer(parameters, config, 0.01)
        assert type(optimizer).__name__ == CLASSES[kind]
        before = sum(p.detach().square().sum() for p in parameters)
        for _ in range(5):
            optimizer.zero_grad()
            sum(p.square().sum() for p in parameters).backward()
            optimizer.step()
        assert sum(p.detach().square().sum() for p in parameters) < before
        assert all(torch.isfinite(p).all() for p in parameters)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_option_reaches_the_optimizer_with_our_default(kind):
    (group,) = make_optimizer([parameter()], {"type": installed(kind)}).param_groups
    for key, default in OptimizerConfig(type=kind).options.items():
        if key != "decay_norms_and_biases":
            assert group[key] == (tuple(default) if isinstance(default, list) else default)


def test_the_default_optimizer():
    """What every result so far was trained with."""
    p = parameter()
    (group,) = make_optimizer([p]).param_groups
    own = torch.optim.AdamW([p], lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, fused=True)
    assert group == own.param_groups[0]


def test_lion_by_hand():
    """Chen et al. 2023: the sign of ``.9 m + .1 g`` is the step, then ``m = .99 m + .01 g``."""
    p = parameter(1.0)
    optimizer = make_optimizer([p], {"type": "lion", "weight_decay": 0.5}, 0.1)
    for gradient, expected in ((2.0, 0.85), (-1.0, 0.9075), (-0.05, 0.762125)):
        p.grad = torch.tensor([gradient])
        optimizer.step()  # p (1 - lr * decay) - lr * sign; m is 0, .02, .0098
        assert p.item() == pytest.approx(expected)


def test_norms_and_biases_may_be_spared_the_decay():
    matrix, bias = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    config = {"type": "adamw", "weight_decay": 0.5, "decay_norms_and_biases": False}
    optimizer = make_optimizer(iter([bias, matrix]), config, 0.1)
    matrix.grad, bias.grad = torch.zeros(2, 2), torch.zeros(2)
    optimizer.step()
    assert matrix.flatten().tolist() == pytest.approx([0.95] * 4)
    assert bias.tolist() == [1.0, 1.0]
    assert len(make_optimizer([bias], config).param_groups) == 1


def test_options_reach_the_optimizer():
    config = {"OPTIMIZER": "adamw", "WEIGHT_DECAY": 0.3, "betas": [0.8, 0.9], "LR": 0.5}
    (group,) = make_optimizer([parameter()], config, 1e-4).param_groups
    assert (group["weight_decay"], group["betas"], group["lr"]) == (0.3, (0.8, 0.9), 0.5)
    (group,) = make_optimizer([parameter()], {"type": "sgd", "momentum": 0.7}, 0.2).param_groups
    assert (group["momentum"], group["lr"]) == (0.7, 0.2)


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_package_that_is_not_there_is_named(monkeypatch, kind):
    monkeypatch.setattr(optim, "find_spec", lambda name: None)
    package = PACKAGES[kind][1]
    with pytest.raises(MissingPackage, match=f"{kind}.*pip install {package}") as error:
        make_optimizer([parameter()], {"OPTIMIZER": kind})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {"OPTIMIZER": "adamwx"},
            r"optimizer\.type: should be 'adamw', .* .did you mean 'adamw'\?., got 'adamwx'",
        ),
        (
            {"OPTIMIZER": "adamw", "WEIGHT_DECAI": 0.1},
            "'weight_decai' .did you mean 'weight_decay'",
        ),
        ({"type": "adamw", "weight_decay": "much"}, r"optimizer\.weight_decay: .*'much'"),
        (
            {"type": "sgd", "eps": 1e-8},
            r"optimizer\.eps: sgd has no option 'eps'; it has dampening",
        ),
        ({"type": "rprop", "weight_decay": 0.1}, "rprop has no option .*; it has etas, step_sizes"),
        ({"type": "rprop", "etas": [1.5, 2.0]}, r"optimizer\.etas: should be below 1 and above 1"),
        ({"type": "rprop", "step_sizes": [2.0, 1.0]}, r"step_sizes: the smallest is above"),
        ({"type": "adamw", "betas": [0.9, 1.0]}, r"optimizer\.betas\[1\]: .*less than 1"),
        ({"LR": "fast"}, r"optimizer\.lr: should be a number, got 'fast'"),
        ({"LR": -1.0}, r"optimizer\.lr: .*0 or more, got -1\.0"),
    ],
)
def test_wrong_optimizer_settings(config, says):
    with pytest.raises(ConfigError, match=says):
        make_optimizer([parameter()], config)


def test_null_is_the_default():
    config = OptimizerConfig(type="sgd", momentum=None, betas=None)
    assert config == OptimizerConfig(type="sgd")
    assert OptimizerConfig(**config.model_dump()).options == config.options
    assert config.model_dump()["momentum"] == 0.0


def rates(scheduler, steps, n, lr=1.0):
    u = updater(parameter(), lr, scheduler, steps)
    found = []
    for _ in range(n):
        found.append(u.lr)
        u.step(u.parameters[0].sum())
    return found


def test_schedules_by_hand():
    assert rates(None, None, 3) == [1.0, 1.0, 1.0]
    assert rates({"SCHEDULER": "linear"}, 4, 5) == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
    warm = {"SCHEDULER": "linear", "NUM_WARMUP_STEPS": 2, "NUM_TRAINING_STEPS": 4}
    assert rates(warm, 99, 5) == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])
    assert rates(SchedulerConfig(type="constant_with_warmup", warmup_steps=2), 9, 4) == [
        0,
        0.5,
        1,
        1,
    ]
    assert rates({"type": "cosine"}, 2, 3) == pytest.approx([1.0, 0.5, 0.0])


half = math.sqrt(0.5)
BY_HAND = {  # at a full rate of 1 over 4 steps, step by step
    "constant": ({}, [1, 1, 1]),
    "constant_with_warmup": ({"warmup_ratio": 0.5}, [0, 0.5, 1, 1]),
    "linear": ({"warmup_ratio": 0.3}, [0, 0.5, 1, 0.5, 0]),  # 1.2 steps are 2
    "cosine": ({"num_cycles": 1}, [1, 0.5, 0, 0.5, 1]),
    "cosine_with_restarts": ({"num_cycles": 2}, [1, 0.5, 1, 0.5, 0]),
    "cosine_with_min_lr": ({"min_lr": 0.2}, [1, 0.6 + 0.4 * half, 0.6, 0.6 - 0.4 * half, 0.2]),
    "cosine_warmup_with_min_lr": (
        {"min_lr_rate": 0.2, "warmup_steps": 2, "warmup_lr_rate": 0.5},
        [0.5, 1, 0.6, 0.2],  # its first step is no wasted one, and neither is its last
    ),
    "polynomial": ({"power": 2, "lr_end": 0.2}, [1, 0.65, 0.4, 0.25, 0.2, 0.2]),
    "inverse_sqrt": ({"warmup_steps": 1, "timescale": 3}, [0, 1, math.sqrt(3 / 4), math.sqrt(0.6)]),
    "warmup_stable_decay": (
        {"warmup_steps": 1, "decay_steps": 2, "decay_type": "linear", "min_lr_rate": 0.2},
        [0.2, 1, 1, 0.6, 0.2],
    ),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_every_schedule_by_hand(kind):
    options, expected = BY_HAND[kind]
    assert rates({"type": kind, **options}, 4, len(expected)) == pytest.approx(expected)


def test_a_decay_by_its_share():
    config = {"type": "warmup_stable_decay", "warmup_ratio": 0.1, "decay_type": "linear"}
    found = rates(config, 30, 31)
    assert found[:4] == pytest.approx([0, 1 / 3, 2 / 3, 1])  # 0.1 of 30 is 3, not 4
    assert found[27:] == pytest.approx([1, 2 / 3, 1 / 3, 0])


def test_the_names_of_transformers_will_do():
    ours = {"type": "warmup_stable_decay", "decay_steps": 2, "min_lr_rate": 0.1}
    theirs = {"SCHEDULER": "warmup_stable_decay", "NUM_DECAY_STEPS": 2, "MIN_LR_RATIO": 0.1}
    assert rates(ours, 4, 5) == rates({**theirs, "NUM_TRAINING_STEPS": 4}, None, 5)


@pytest.mark.parametrize(
    ("config", "steps", "says"),
    [
        ({"type": "linear", "warmup_steps": 5}, 4, "warmup_steps: 5 are more than all 4 optimiser"),
        ({"type": "polynomial", "lr_end": 1.0}, 4, "lr_end: should be below .* 1, got 1"),
        ({"type": "cosine_with_min_lr", "min_lr": 2.0}, 4, "min_lr: should be below"),
        ({"type": "constant_with_warmup", "warmup_ratio": 0.1}, None, "training_steps: .* needs"),
        ({"type": "warmup_stable_decay", "warmup_steps": 4}, 4, "decay_ratio: 1 steps and the"),
    ],
)
def test_schedules_that_do_not_fit(config, steps, says):
    with pytest.raises(ConfigError, match=rf"scheduler\.{says}"):
        rates(config, steps, 1)


def test_a_rate_that_decays_needs_to_know_how_far():
    with pytest.raises(ConfigError, match=r"scheduler\.training_steps: linear needs it"):
        rates({"SCHEDULER": "linear"}, None, 1)
    with pytest.raises(ConfigError, match="should be a number, got 'many'"):
        rates({"SCHEDULER": "linear", "NUM_TRAINING_STEPS": "many"}, None, 1)
    with pytest.raises(ConfigError, match="scheduler.type: .* got 'liner'"):
        rates({"SCHEDULER": "liner"}, 4, 1)


def test_a_step_scales_the_rate_for_itself_alone():
    p = parameter(1.0)
    u = updater(p, lr=0.1)
    assert u.step(p.sum(), lr_scale=3.0).grad_norm == 1.0
    assert p.item() == pytest.approx(0.7)
    assert u.lr == 0.1
    u.step(p.sum())
    assert p.item() == pytest.approx(0.6)


def test_a_rate_of_zero_changes_nothing():
    p = parameter(1.0)
    u = updater(p, 0.1, {"type": "constant_with_warmup", "warmup_steps": 1})
    assert u.lr == 0.0
    assert u.peak_lr == 0.1
    u.step(p.sum())
    assert p.item() == 1.0
    u.step(p.sum())
    assert p.item() == pytest.approx(0.9)


def test_gradients_are_clipped():
    p = parameter(1.0)
    u = updater(p, lr=1.0, max_grad_norm=0.25)
    assert u.step(10 * p.sum()).grad_norm == pytest.approx(10.0)  # as it was before clipping
    assert p.item() == pytest.approx(0.75, abs=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(bad):
    p = parameter(1.0)
    u = updater(p)
    with pytest.raises(FloatingPointError, match="diverged") as error:
        u.step((p * bad).sum())
    assert isinstance(error.value, Diverged)
    assert isinstance(error.value, UserError)
    assert p.item() == 1.0


# -- the walk through the data ----------------------------------------------------------------


def test_each_pass_gives_every_item_once():
    cursor = Cursor(list("abcde"), seed=1)
    walked = [item for _ in range(5) for item in cursor.take(3)]
    passes = [walked[i : i + 5] for i in range(0, 15, 5)]
    assert all(sorted(p) == list("abcde") for p in passes)
    assert len({tuple(p) for p in passes}) > 1


def test_the_position_is_the_whole_state():
    a, b = Cursor(range(7), seed=3), Cursor(range(7), seed=3)
    a.take(10)
    b.position = a.position
    assert a.take(9) == b.take(9)
    assert Cursor(range(50), seed=4).take(50) != Cursor(range(50), seed=5).take(50)


def test_batches_of_like_length():
    """In 40 random lengths, batches of 4 are far more alike than chance gives."""
    items = torch.randint(1, 100, (40,), generator=torch.Generator().manual_seed(0)).tolist()
    cursor = Cursor(items, 0, batch_size=4, length=lambda n: n)
    batches = [cursor.take(4) for _ in range(10)]
    assert sorted(item for batch in batches for item in batch) == sorted(items)
    assert sum(max(b) - min(b) for b in batches) < 10 * 20
    assert [min(b) for b in batches] != sorted(min(b) for b in batches)


def test_an_empty_data_set():
    with pytest.raises(ValueError, match="nothing"):
        Cursor([], seed=0)


# -- what training said -----------------------------------------------------------------------


def test_history(tmp_path):
    logged = []
    history = History(lambda stats, step, at_ms: logged.append(step))
    history({"sft/loss": 2.0, "sft/time/step_s": 0.1}, 1)
    history({"sft/loss": 1.0, "sft/time/step_s": 0.1}, 2)
    history({}, 2)
    history({"ppo/score/mean": 0.5}, 3)
    assert logged == [1, 2, 3]
    assert history.last("sft", over=5) == {"sft/loss": 1.5}
    assert history.last("sft") == {"sft/loss": 1.0}
    assert history.last("validation") == {}
    history.write(tmp_path)
    assert (tmp_path / "sft.csv").read_text().splitlines() == ["step,sft/loss", "1,2.0", "2,1.0"]
    assert not (tmp_path / "validation.csv").exists()
    History(print).write(tmp_path / "nothing")
    assert (tmp_path / "nothing").is_dir(), "DVC wants the folder"
