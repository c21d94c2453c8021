"""Optimisers and learning-rate schedules by name, and the optimiser step that all phases share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from mht.config import OptimizerConfig, SchedulerConfig
from mht.config.optim import CLASSES, ENDLESS, PACKAGES
from mht.core.component import build
from mht.core.errors import ConfigError, MissingPackage, UserError
from mht.core.keywords import explain_keywords
from mht.devices.base import Devices
from mht.optim.masters import Masters

N = TypeVar("N", int, float)
T = TypeVar("T")
ALIASES = {
    **dict.fromkeys(("optimizer", "optim", "scheduler", "lr_scheduler", "name"), "type"),
    **dict.fromkeys(("num_warmup_steps", "warmup", "num_warmup"), "warmup_steps"),
    **dict.fromkeys(("num_training_steps", "total_steps", "max_steps"), "training_steps"),
    "num_decay_steps": "decay_steps",
    "min_lr_ratio": "min_lr_rate",
    **dict.fromkeys(("lrate", "learning_rate"), "lr"),
}
FUSED = ("adamw", "adam")  # one pass over the weights, on a CPU too
SMALLEST_SCALE = 1.0  # gradients that overflow unscaled are no matter of scaling


class Diverged(UserError, FloatingPointError):
    """The loss or its gradients are not finite any more."""


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


@dataclass(frozen=True)
class Update(Generic[T]):
    """What one optimiser step did.

    Attributes:
        lr: the schedule's rate, before any ``lr_scale``.
        grad_norm: of the gradients before clipping; 0 for a step that the loss scale left out.
        reports: what the caller gave beside each part of the loss.
        scale_figures: of the loss scale, keys ``optim/...``; empty without one.
    """

    lr: float
    grad_norm: float
    reports: Sequence[T]
    scale_figures: Mapping[str, float]

    @property
    def figures(self) -> dict[str, float]:
        """Rate, norm and loss scale, keys ``optim/...``."""
        return {"optim/lr": self.lr, "optim/grad_norm": self.grad_norm, **self.scale_figures}


class Updater:
    """Backward, clip, step: one optimiser and its schedule over the whole alternation.

    Args:
        parameters: what trains; for a model in 16 bits its `Masters`.
        optimizer: over them.
        scheduler: of it.
        max_grad_norm: gradients are clipped to this norm.
        scaler: multiplies the loss, for a model in float16 (Micikevicius et al. 2018,
            arXiv:1710.03740). A step whose gradients overflow is left out, and the scale halved.
        devices: whose gradients add up; None is this process alone.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        max_grad_norm: float,
        scaler: torch.amp.GradScaler | None = None,
        devices: Devices | None = None,
    ):
        self.masters = parameters if isinstance(parameters, Masters) else Masters(parameters)
        self.parameters = list(self.masters)
        self.optimizer, self.scheduler = optimizer, scheduler
        self.max_grad_norm, self.scaler = max_grad_norm, scaler
        self.devices = devices or Devices("cpu")

    @property
    def lr(self) -> float:
        """The schedule's rate for the next step."""
        return self.optimizer.param_groups[0]["lr"]

    @property
    def peak_lr(self) -> float:
        """The rate that the schedule's share is taken of."""
        return self.optimizer.param_groups[0]["initial_lr"]

    def step(self, loss: Tensor, lr_scale: float = 1.0) -> Update[None]:
        """One optimiser step down a scalar loss; see `step_in_parts`."""
        return self.step_in_parts([(loss, None)], lr_scale)

    def step_in_parts(self, parts: Iterable[tuple[Tensor, T]], lr_scale: float = 1.0) -> Update[T]:
        """One optimiser step down the sum of some losses, at the schedule's rate.

        Args:
            parts: scalars that add up to the loss, each with a report for the result. Each loss is
                differentiated before the next is computed, so only one graph is in memory. With
                several processes, the parts of this process.
            lr_scale: multiplies the schedule's rate for this step.

        Raises:
            Diverged: the loss or its gradients are not finite; nothing was changed.
        """
        rate = self.lr
        self.optimizer.zero_grad(set_to_none=True)
        total, reports = self._differentiate(parts)
        self.devices.add_gradients(self.parameters)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        total = self.devices.sums({"loss": total})["loss"]
        with self._rates_times(lr_scale):
            norm = self.devices.step(
                self.optimizer, self.parameters, self.max_grad_norm, allowed=math.isfinite(total)
            )
        can_overflow = self.scaler is not None
        if not (math.isfinite(total) and (math.isfinite(norm) or can_overflow)):
            raise Diverged(
                f"the loss is {total} and its gradients' norm {norm}: training has diverged; "
                "lower the learning rate"
            )
        is_skipped = not math.isfinite(norm)
        scale_figures = self._move_scale(is_skipped=is_skipped)
        if is_skipped:
            return Update(rate, 0.0, reports, scale_figures)
        self.masters.round()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)  # sampling can use the memory
        return Update(rate, norm, reports, scale_figures)

    def _differentiate(self, parts: Iterable[tuple[Tensor, T]]) -> tuple[float, list[T]]:
        """The sum of the losses, whose gradients are added up, and the reports beside them."""
        total, reports = 0.0, []
        for loss, report in parts:
            self.devices.backward(loss if self.scaler is None else self.scaler.scale(loss))
            total += float(loss.detach())
            reports.append(report)
        return total, reports

    @contextmanager
    def _rates_times(self, scale: float) -> Iterator[None]:
        """Within the block every rate is multiplied by ``scale``."""
        groups = self.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * scale
        try:
            yield
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate

    def skip(self, steps: int) -> None:
        """Move the schedule on by steps that it counts and that are not made."""
        for _ in range(steps):
            self.scheduler.step()

    def _move_scale(self, *, is_skipped: bool) -> dict[str, float]:
        """Move the loss scale after a step; its figures, none without one.

        Raises:
            Diverged: gradients overflow at every scale.
        """
        if self.scaler is None:
            return {}
        self.scaler.update()
        scale = self.scaler.get_scale()
        if scale < SMALLEST_SCALE:
            raise Diverged(
                f"the gradients overflow float16 at every loss scale down to {scale:g}: training "
                "has diverged; lower the learning rate, or set model.dtype to bfloat16 or float32"
            )
        return {"optim/loss_scale": scale, "optim/skipped": float(is_skipped)}
