"""Optimisers and learning-rate schedules by name, and the optimiser step that all phases share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mht.component import build
from mht.config import OptimizerConfig, SchedulerConfig
from mht.errors import ConfigError, MissingPackage, UserError
from mht.trainers.devices import Devices

N = TypeVar("N", int, float)
ALIASES = {
    "optimizer": "type",
    "scheduler": "type",
    "num_warmup_steps": "warmup_steps",
    "num_training_steps": "training_steps",
    "lrate": "lr",
    "learning_rate": "lr",
}
DECAYING = ("linear", "cosine", "polynomial")


class Diverged(UserError, FloatingPointError):
    """The loss or its gradients are not finite any more."""


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    config: OptimizerConfig | Mapping[str, Any] | None = None,
    lr: float = 1e-4,
) -> torch.optim.Optimizer:
    """An optimiser over the parameters.

    Args:
        parameters: what trains.
        config: its name and options, such as ``{"OPTIMIZER": "adamw_8bit"}`` or
            ``{"type": "adamw", "weight_decay": 0.01}``; upper and lower case are the same.
        lr: learning rate; one in ``config`` wins.

    Raises:
        ConfigError: an unknown name or option.
        MissingPackage: the 8-bit one needs bitsandbytes.
    """
    if not isinstance(config, OptimizerConfig):
        options = _plain(config)
        lr = _number("optimizer.lr", options.pop("lr", lr), float)
        config = build(OptimizerConfig, options, path="optimizer")
    kind, decay = config.type, {"lr": lr, "weight_decay": config.weight_decay}
    betas = {"betas": (config.betas[0], config.betas[1]), "eps": config.eps}
    if kind == "adamw_8bit":
        if find_spec("bitsandbytes") is None:
            raise MissingPackage("bitsandbytes", "the optimizer 'adamw_8bit' (or set 'adamw')")
        import bitsandbytes

        return bitsandbytes.optim.AdamW8bit(parameters, **decay, **betas)
    if kind == "sgd":
        return torch.optim.SGD(parameters, **decay, momentum=config.momentum)
    if kind == "rmsprop":
        return torch.optim.RMSprop(parameters, **decay, momentum=config.momentum)
    if kind == "adafactor":
        return torch.optim.Adafactor(parameters, **decay)
    family = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return family[kind](parameters, **decay, **betas, fused=True)


def make_scheduler(
    optimizer: torch.optim.Optimizer,
    config: SchedulerConfig | Mapping[str, Any] | None = None,
    training_steps: int | None = None,
) -> torch.optim.lr_scheduler.LRScheduler:
    """A learning-rate schedule over optimiser steps.

    Args:
        optimizer: whose rate it moves.
        config: its name and options, such as ``{"SCHEDULER": "linear",
            "NUM_TRAINING_STEPS": 20000, "NUM_WARMUP_STEPS": 1000}``.
        training_steps: optimiser steps until a decaying rate is 0; one in ``config`` wins.

    Raises:
        ConfigError: an unknown name or option, or a decaying rate without a number of steps.
    """
    from transformers import get_scheduler

    if not isinstance(config, SchedulerConfig):
        options = _plain(config)
        training_steps = options.pop("training_steps", training_steps)
        config = build(SchedulerConfig, options, path="scheduler")
    if training_steps is not None:
        training_steps = _number("scheduler.training_steps", training_steps, int)
    elif config.type in DECAYING:
        problem = f"scheduler.training_steps: {config.type} needs it: over how many steps it falls"
        raise ConfigError([problem])
    return get_scheduler(
        config.type,
        optimizer,
        num_warmup_steps=config.warmup_steps,
        num_training_steps=max(training_steps or 1, config.warmup_steps + 1),
    )


def _plain(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options in lower case under this project's names."""
    lowered = {str(key).lower(): value for key, value in (config or {}).items()}
    return {ALIASES.get(key, key): value for key, value in lowered.items()}


def _number(path: str, value: Any, kind: Callable[[Any], N]) -> N:
    try:
        number = kind(value)
    except (TypeError, ValueError):
        raise ConfigError([f"{path}: should be a number, got {value!r}"]) from None
    if not (math.isfinite(number) and number >= 0):
        raise ConfigError([f"{path}: should be a finite number, 0 or more, got {value!r}"])
    return number


class Updater:
    """Backward, clip, step: one optimiser and its schedule over the whole alternation.

    Args:
        parameters: what trains.
        optimizer: over them.
        scheduler: of it.
        max_grad_norm: gradients are clipped to this norm.
        devices: whose gradients add up; None is this process alone.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        max_grad_norm: float,
        devices: Devices | None = None,
    ):
        self.parameters = list(parameters)
        self.optimizer, self.scheduler = optimizer, scheduler
        self.max_grad_norm = max_grad_norm
        self.devices = devices or Devices("cpu")

    @property
    def lr(self) -> float:
        """The schedule's rate for the next step."""
        return self.optimizer.param_groups[0]["lr"]

    @property
    def peak_lr(self) -> float:
        """The rate that the schedule's share is taken of."""
        return self.optimizer.param_groups[0]["initial_lr"]

    def step(self, loss: Tensor | Iterable[Tensor], lr_scale: float = 1.0) -> float:
        """One optimiser step down the loss, at the schedule's rate times ``lr_scale``.

        Args:
            loss: a scalar, or the parts of one that add up to it: each is differentiated before
                the next is asked for, so that only one graph is in memory. With several processes,
                this one's parts of it.
            lr_scale: see above.

        Returns:
            The gradients' norm before clipping.

        Raises:
            Diverged: the loss or its gradients are not finite; nothing was changed.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in [loss] if isinstance(loss, Tensor) else loss:
            part.backward()
            total += float(part.detach())
        self.devices.add_gradients(self.parameters)
        total = self.devices.sums({"loss": total})["loss"]
        norm = self.devices.clip(self.parameters, self.max_grad_norm)
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise Diverged(
                f"the loss is {total} and its gradients' norm {norm}: training has diverged; "
                "lower the learning rate"
            )
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * lr_scale
        self.optimizer.step()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.scheduler.step()
        return norm
