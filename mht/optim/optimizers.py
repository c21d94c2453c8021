"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import nn

from mht.config import OptimizerConfig, SchedulerConfig
from mht.config.optim import CLASSES, ENDLESS, PACKAGES
from mht.core.component import build
from mht.core.errors import ConfigError, MissingPackage
from mht.core.keywords import explain_keywords

N = TypeVar("N", int, float)
ALIASES = {
    **dict.fromkeys(("optimizer", "optim", "scheduler", "lr_scheduler", "name"), "type"),
    **dict.fromkeys(("num_warmup_steps", "warmup", "num_warmup"), "warmup_steps"),
    **dict.fromkeys(("num_training_steps", "total_steps", "max_steps"), "training_steps"),
    "num_decay_steps": "decay_steps",
    "min_lr_ratio": "min_lr_rate",
    **dict.fromkeys(("lrate", "learning_rate"), "lr"),
}
FUSED = ("adamw", "adam")  # one pass over the weights, on a CPU too


@explain_keywords(
    "make_optimizer",
    parameters="params model_parameters",
    config="optimizer optimizer_config optim name spec type",
    lr="learning_rate lrate rate",
)
def make_optimizer(
    parameters: Iterable[nn.Parameter],
    config: OptimizerConfig | Mapping[str, Any] | str | None = None,
    lr: float = 1e-4,
) -> torch.optim.Optimizer:
    """An optimiser over the parameters.

    Args:
        parameters: what trains.
        config: its name, or that and options: ``{"OPTIMIZER": "adamw_8bit"}``, ``{"type":
            "adamw", "weight_decay": 0.01}``; upper and lower case are the same.
        lr: learning rate; one in ``config`` wins.

    Raises:
        ConfigError: an unknown name or option.
        MissingPackage: lion and those with 8 bits come from packages of their own.
    """
    if not isinstance(config, OptimizerConfig):
        options = _plain(config, "optimizer")
        lr = _number("optimizer.lr", options.pop("lr", lr), float)
        config = build(OptimizerConfig, options, path="optimizer")
    options = config.options
    spares = not options.pop("decay_norms_and_biases", True)
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    if config.type in FUSED:
        options["fused"] = True
    groups = _groups(parameters, options["weight_decay"]) if spares else parameters
    return getattr(_home(config.type), CLASSES[config.type])(groups, lr=lr, **options)


def _groups(parameters: Iterable[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Matrices with the decay, then norms and biases without."""
    listed = list(parameters)
    pairs = [([p for p in listed if p.dim() >= 2], decay), ([p for p in listed if p.dim() < 2], 0)]
    return [{"params": some, "weight_decay": share} for some, share in pairs if some]


def _home(kind: str) -> Any:
    """The module that has the optimiser's class."""
    if kind not in PACKAGES:
        return torch.optim
    module, package = PACKAGES[kind]
    if find_spec(module.partition(".")[0]) is None:
        raise MissingPackage(package, f"the optimizer {kind!r} (or set 'adamw')")
    return import_module(module)


@explain_keywords(
    "make_scheduler",
    config="scheduler scheduler_config lr_scheduler name spec type",
    training_steps="num_training_steps total_steps max_steps steps",
)
def make_scheduler(
    optimizer: torch.optim.Optimizer,
    config: SchedulerConfig | Mapping[str, Any] | str | None = None,
    training_steps: int | None = None,
) -> torch.optim.lr_scheduler.LRScheduler:
    """A learning-rate schedule over optimiser steps.

    Args:
        optimizer: whose rate it moves.
        config: its name and options, such as ``{"SCHEDULER": "linear",
            "NUM_TRAINING_STEPS": 20000, "NUM_WARMUP_STEPS": 1000}``.
        training_steps: optimiser steps over which the rate goes; one in ``config`` wins.

    Raises:
        ConfigError: an unknown name or option, a decaying rate without a number of steps, or
            options that do not fit that number.
    """
    from transformers import get_scheduler

    if not isinstance(config, SchedulerConfig):
        options = _plain(config, "scheduler")
        training_steps = options.pop("training_steps", training_steps)
        config = build(SchedulerConfig, options, path="scheduler")
    if training_steps is not None:
        training_steps = _number("scheduler.training_steps", training_steps, int)
    elif config.type not in ENDLESS or config.warmup_ratio is not None:
        problem = f"scheduler.training_steps: {config.type} needs it: over how many steps it goes"
        raise ConfigError([problem])
    steps = training_steps or 0
    misfits = config.misfits(optimizer.defaults["lr"], steps)
    if misfits:
        raise ConfigError([f"scheduler.{key}: {what}" for key, what in misfits])
    warmup = config.warmup(steps)
    return get_scheduler(
        config.type,
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=max(steps, warmup + 1),
        scheduler_specific_kwargs=_library_options(config, steps),
    )


def _library_options(config: SchedulerConfig, steps: int) -> dict[str, Any]:
    """A schedule's options under their names in transformers, those of the warm-up left out."""
    options = config.options
    for key in ("warmup_steps", "warmup_ratio", "decay_steps", "decay_ratio"):
        options.pop(key, None)
    if config.type == "warmup_stable_decay":
        options["min_lr_ratio"] = options.pop("min_lr_rate")
        options["num_decay_steps"] = config.decay(steps)
    return options


def _plain(config: Mapping[str, Any] | str | None, path: str) -> dict[str, Any]:
    """Options in lower case under this project's names; a name alone is the type."""
    if isinstance(config, str):
        return {"type": config}
    if config is not None and not isinstance(config, Mapping):
        raise ConfigError([f"{path}: should be a dict with its type and options, got {config!r}"])
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
