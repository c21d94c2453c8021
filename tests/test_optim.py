"""Optimisers, schedules and the one optimiser step; the walk through the data."""

import importlib.util

import pytest
import torch

from mht.config import OptimizerConfig, SchedulerConfig
from mht.errors import ConfigError, MissingPackage, UserError
from mht.trainers.cursor import Cursor
from mht.trainers.history import History
from mht.trainers.optim import Diverged, Updater, make_optimizer, make_scheduler


def parameter(value=1.0):
    return torch.nn.Parameter(torch.tensor([value]))


def updater(p, lr=0.1, scheduler=None, steps=None, max_grad_norm=1e9):
    optimizer = make_optimizer([p], {"type": "sgd"}, lr)
    return Updater([p], optimizer, make_scheduler(optimizer, scheduler, steps), max_grad_norm)


@pytest.mark.parametrize(
    ("kind", "cls"),
    [
        ("adamw", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("sgd", torch.optim.SGD),
        ("rmsprop", torch.optim.RMSprop),
        ("adafactor", torch.optim.Adafactor),
    ],
)
def test_every_optimizer_goes_downhill(kind, cls):
    for config in ({"OPTIMIZER": kind}, OptimizerConfig(type=kind)):
        p = parameter()
        optimizer = make_optimizer([p], config, 0.01)
        assert isinstance(optimizer, cls)
        for _ in range(5):
            optimizer.zero_grad()
            p.square().sum().backward()
            optimizer.step()
        assert p.item() < 1.0


def test_options_reach_the_optimizer():
    config = {"OPTIMIZER": "adamw", "WEIGHT_DECAY": 0.3, "betas": [0.8, 0.9], "LR": 0.5}
    (group,) = make_optimizer([parameter()], config, 1e-4).param_groups
    assert (group["weight_decay"], group["betas"], group["lr"]) == (0.3, (0.8, 0.9), 0.5)
    (group,) = make_optimizer([parameter()], {"type": "sgd", "momentum": 0.7}, 0.2).param_groups
    assert (group["momentum"], group["lr"]) == (0.7, 0.2)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="it is installed")
def test_the_8bit_optimizer_says_what_to_install():
    with pytest.raises(MissingPackage, match="adamw_8bit.*pip install bitsandbytes"):
        make_optimizer([parameter()], {"OPTIMIZER": "adamw_8bit"})


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"OPTIMIZER": "adamm"}, r"optimizer\.type: should be 'adamw', .* got 'adamm'"),
        (
            {"OPTIMIZER": "adamw", "WEIGHT_DECAI": 0.1},
            "'weight_decai' .did you mean 'weight_decay'",
        ),
        ({"type": "adamw", "weight_decay": "much"}, r"optimizer\.weight_decay: .*'much'"),
        ({"type": "adamw", "betas": [0.9, 1.0]}, r"optimizer\.betas\[1\]: .*less than 1"),
        ({"LR": "fast"}, r"optimizer\.lr: should be a number, got 'fast'"),
        ({"LR": -1.0}, r"optimizer\.lr: .*0 or more, got -1\.0"),
    ],
)
def test_wrong_optimizer_settings(config, says):
    with pytest.raises(ConfigError, match=says):
        make_optimizer([parameter()], config)


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
    assert u.step(p.sum(), lr_scale=3.0) == 1.0  # the gradient's norm
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
    assert u.step(10 * p.sum()) == pytest.approx(10.0)  # as it was before clipping
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
