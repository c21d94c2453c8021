"""The optimiser step that all phases share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from mht.core.errors import UserError
from mht.devices.base import Devices
from mht.optim.masters import Masters

T = TypeVar("T")
SMALLEST_SCALE = 1.0  # gradients that overflow unscaled are no matter of scaling


class Diverged(UserError, FloatingPointError):
    """The loss or its gradients are not finite any more."""


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
