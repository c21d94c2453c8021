"""Every optimiser and every schedule goes on from a checkpoint as if nothing had happened."""

import json

import pytest
import torch

from mht.config.optim import OPTIMIZERS, PACKAGES, SCHEDULERS
from mht.devices.base import Devices
from mht.optim.masters import Masters
from mht.optim.optimizers import make_optimizer, make_scheduler
from mht.optim.updater import Updater
from mht.training.resume.parts import RandomNumbers, Weights, updater_parts
from mht.training.resume.state import State, capture, restore

HALF, LR = 4, 1e-2
NEEDED = {"cosine_with_min_lr": {"min_lr_rate": 0.1}, "cosine_warmup_with_min_lr": {"min_lr": 1e-4}}
ACTIVE = {  # options that bring more state into play
    "adamw": {"amsgrad": True},
    "sgd": {"momentum": 0.9, "nesterov": True},
    "rmsprop": {"momentum": 0.5, "centered": True},
    "asgd": {"t0": 2.0},
}


class Toy:
    """What a checkpoint holds of a trainer, around two weights and a bias."""

    def __init__(self, optimizer, scheduler, dtype):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(70, 60), torch.nn.Linear(60, 3)).to(dtype)
        masters = Masters(model.parameters())
        made = make_optimizer(masters, optimizer, LR)
        schedule = make_scheduler(made, scheduler, 2 * HALF)
        self.updater = Updater(masters, made, schedule, 1.0)
        self.model, self.generator = model, torch.Generator()
        self.states = {
            "model": Weights("model", model, masters),
            **updater_parts(self.updater),
            "random": RandomNumbers(Devices("cpu"), data=self.generator),
        }
        self.rates = []

    def train(self, steps):
        for _ in range(steps):
            x = torch.randn(5, 70, generator=self.generator)
            parameter = next(self.model.parameters())
            loss = self.model(x.to(parameter.dtype)).float().square().mean()
            self.rates.append(self.updater.lr)
            self.updater.step(loss)

    def outcome(self):
        return [p.detach().clone() for p in self.model.parameters()]


def through_a_file(state):
    """As `Checkpoints` writes it and reads it back."""
    from safetensors.torch import load, save

    return State(load(save(state.tensors)), json.loads(json.dumps(state.plain)))


def options(kind):
    return {"type": kind, **ACTIVE.get(kind, {})}


def check(optimizer, scheduler, dtype=torch.float32):
    whole, first, second = (Toy(optimizer, scheduler, dtype) for _ in range(3))
    start = whole.outcome()
    whole.train(2 * HALF)
    first.train(HALF)
    second.train(1)  # a state of its own, which must go
    restore(second.states, through_a_file(capture(first.states)))
    second.train(HALF)
    for a, b, before in zip(whole.outcome(), second.outcome(), start, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, before)
    assert second.rates[1:] == whole.rates[HALF:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_optimizer_resumes_exactly(kind, dtype):
    if kind in PACKAGES:
        pytest.importorskip(PACKAGES[kind][0].split(".")[0])
    check(options(kind), None, dtype)


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_every_schedule_resumes_exactly(kind):
    warm = {"warmup_steps": 2} if "warmup_steps" in SCHEDULERS[kind] else {}
    check({"type": "sgd"}, {"type": kind, **warm, **NEEDED.get(kind, {})})
