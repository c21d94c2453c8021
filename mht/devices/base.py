"""One process that trains a policy, and the interface of several that share the work.

`Devices` is one process that has all rows, and the interface of the others: `processes.Processes`
(data parallel), `sharded.Sharded` (FSDP) and `zero.Zero` (DeepSpeed). `make.make_devices` chooses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from mht.config import HybridConfig
from mht.core.errors import ConfigError
from mht.core.records import Rollout
from mht.generation.sampling.rollout import Responder
from mht.models.loading import resolve_device
from mht.models.policy import Policy, Weights

T = TypeVar("T")


class Devices:
    """One process that has all rows, and the interface of `Processes`.

    Args:
        device: "auto", "cpu", "cuda"...

    Attributes:
        rank: number of this process, from 0 on.
        world: how many there are.
        device: where this process computes.
        shards: whether each process holds only a part of the weights or of the optimiser's state.
            All processes then make equally many passes, and all contribute to a checkpoint.
    """

    rank, world = 0, 1
    shards = False

    def __init__(self, device: str = "auto"):
        self.device = resolve_device(device)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """Rows of a batch of ``count`` that are this process's.

        Raises:
            UserError: the rows can't be split evenly.
        """
        return slice(0, count)

    def check(self, sizes: Mapping[str, int]) -> None:
        """Check that every size can be split evenly.

        Raises:
            ConfigError: names each size that can't.
        """
        problems = indivisible(sizes, self.world)
        if problems:
            raise ConfigError(problems)

    def start_alike(self, model: nn.Module) -> None:
        """Give every process the main one's weights."""

    def spread(self, policy: Policy, config: HybridConfig) -> None:
        """Lay the policy out over the devices, before its optimiser is made."""

    def share(
        self, optimizer: torch.optim.Optimizer, policy: Policy, max_grad_norm: float
    ) -> torch.optim.Optimizer:
        """The optimiser, or one with its state shared out; before its schedule is made."""
        return optimizer

    def look(self, compute: Callable[[], T]) -> T:
        """Figures of the policy, from passes without gradient that are not split by rows."""
        return compute()

    def weights(self, policy: Policy) -> Weights | None:
        """All weights whole, where this process's modules hold but a part; all call this."""
        return None

    def draw(
        self, responder: Responder, ids: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Rollout:
        """`Responder.draw` for the whole batch of prompts (B, P), each process its rows."""
        return responder.draw(ids, mask, generator)

    def by_rows(self, compute: Callable[[Rollout], T], rollout: Rollout) -> T:
        """``compute(rollout)``, a tensor (B, ...) or a dataclass of them, each process its rows."""
        return compute(rollout)

    def on_main(self, compute: Callable[[], T]) -> T:
        """What the main process computes; the others wait for it.

        Raises:
            Elsewhere: it failed there, where its own error is raised.
        """
        return compute()

    def backward(self, loss: Tensor) -> None:
        """Differentiate this process's part of a loss."""
        loss.backward()

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up the processes' gradients; one that no process has stays None."""

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Iterable[nn.Parameter],
        max_norm: float,
        *,
        allowed: bool,
    ) -> float:
        """The gradients' norm before they are clipped to ``max_norm``, and the optimiser's step.

        There is no step where the norm is not finite, or it is not ``allowed``.
        """
        norm = self.clip(parameters, max_norm)
        if allowed and math.isfinite(norm):
            optimizer.step()
        return norm

    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> float:
        """The gradients' norm before they are clipped to ``max_norm``."""
        return float(nn.utils.clip_grad_norm_(parameters, max_norm))

    def sums(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The figures, each added up over the processes."""
        return dict(figures)

    def largest(self, figure: float) -> float:
        """The largest of the processes' figures."""
        return figure


def indivisible(sizes: Mapping[str, int], world: int) -> list[str]:
    """A line for each size, by path, that ``world`` processes can't split evenly."""
    return [
        f"{path}: {size} can't be split among {world} processes: set a multiple of {world}"
        for path, size in sizes.items()
        if size % world
    ]
