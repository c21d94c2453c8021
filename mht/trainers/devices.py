"""Several processes that train one policy, each on its rows of every batch (through Accelerate).

Every process walks through the same data and draws the same random numbers; only the passes through
the model are split by rows, and what they give is put together again. So the sizes in params.yaml
are those of the whole run, and one process or many make the same steps up to the rounding of sums.

Gradients are added up here, not by DistributedDataParallel: MHT runs parts of the model by
themselves (the head's weight, replayed layers, the value head), and a step has as many passes as it
has microbatches, which may differ between processes; DDP's hooks want each backward to follow one
forward through its wrapper, the same on all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mht.config import HybridConfig
from mht.errors import ConfigError, Elsewhere, UserError
from mht.launched import world_size
from mht.models.loading import resolve_device
from mht.models.policy import Policy, Weights
from mht.rollout import Responder
from mht.sampling.draw import SharedGenerator
from mht.types import Rollout

T = TypeVar("T")

BUCKET = 2**25  # elements of gradients that are added up in one go
PATIENCE = timedelta(hours=6)  # how long the others wait for the main process's rewards


class Devices:
    """One process that has all rows; the face of `Processes`.

    Args:
        device: "auto", "cpu", "cuda"...

    Attributes:
        rank: number of this process, from 0 on.
        world: how many there are.
        device: where this process computes.
        shards: whether each process holds but a part of every weight.
    """

    rank, world = 0, 1
    shards = False

    def __init__(self, device: str = "auto"):
        self.device = resolve_device(device)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """This process's rows of a batch of ``count``.

        Raises:
            UserError: they can't be split evenly.
        """
        return slice(0, count)

    def check(self, sizes: Mapping[str, int]) -> None:
        """Every size can be split evenly.

        Raises:
            ConfigError: with each that can't.
        """
        problems = indivisible(sizes, self.world)
        if problems:
            raise ConfigError(problems)

    def start_alike(self, model: nn.Module) -> None:
        """Give every process the main one's weights."""

    def spread(self, policy: Policy, config: HybridConfig) -> None:
        """Lay the policy out over the devices, before its optimiser is made."""

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

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up the processes' gradients; one that no process has stays None."""

    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> float:
        """The gradients' norm before they are clipped to ``max_norm``."""
        return float(nn.utils.clip_grad_norm_(parameters, max_norm))

    def sums(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The figures, each added up over the processes."""
        return dict(figures)

    def largest(self, figure: float) -> float:
        """The largest of the processes' figures."""
        return figure


class Processes(Devices):
    """This process among several, started by `accelerate launch`.

    Args:
        device: "auto", "cpu" or "cuda"; each process has a device of its own.
    """

    def __init__(self, device: str = "auto"):
        from accelerate import Accelerator, InitProcessGroupKwargs

        wanted = resolve_device(device)
        if wanted.index is not None:
            problem = f"{device!r} is one device for several processes; set 'auto'"
            raise ConfigError([f"base.device: {problem}"])
        patience = InitProcessGroupKwargs(timeout=PATIENCE)
        self.accelerator = Accelerator(cpu=wanted.type == "cpu", kwargs_handlers=[patience])
        self.rank = self.accelerator.process_index
        self.world = self.accelerator.num_processes
        self.device = self.accelerator.device
        if self.accelerator.mixed_precision != "no":
            problem = f"mixed_precision is {self.accelerator.mixed_precision!r}: set it to 'no'"
            raise ConfigError([f"base.accelerate: {problem}, model.dtype decides"])

    def rows(self, count: int) -> slice:
        """This process's rows of a batch of ``count``.

        Raises:
            UserError: they can't be split evenly.
        """
        share, rest = divmod(count, self.world)
        if rest:
            raise UserError(f"a batch of {count} rows can't be split among {self.world} processes")
        return slice(self.rank * share, (self.rank + 1) * share)

    def start_alike(self, model: nn.Module) -> None:
        """Give every process the main one's weights."""
        from accelerate.utils import broadcast

        for tensor in (*model.parameters(), *model.buffers()):
            broadcast(tensor.data)

    def draw(
        self, responder: Responder, ids: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Rollout:
        """`Responder.draw` for the whole batch of prompts (B, P), each process its rows."""
        responder.check_lengths(mask.sum(1))  # of all rows, so that no process fails by itself
        rows, shared = self.rows(len(ids)), SharedGenerator(generator, self.rank, self._each)
        rollout = responder.draw(ids[rows], mask[rows], shared)
        shared.finish()
        width = rollout.response_ids.shape[1]
        rollout = widened(rollout, max(self._each(width)) - width, responder.pad_id)
        return self._together(rollout)

    def by_rows(self, compute: Callable[[Rollout], T], rollout: Rollout) -> T:
        """``compute(rollout)``, a tensor (B, ...) or a dataclass of them, each process its rows."""
        rows = torch.arange(len(rollout), device=rollout.response_ids.device)
        return self._together(compute(rollout.rows(rows[self.rows(len(rollout))])))

    def _together(self, part: T) -> T:
        """All processes' rows of a tensor (b, ...), or of a dataclass of them."""
        if isinstance(part, Tensor):
            return cast(T, self.accelerator.gather(part))
        tensors = {f.name: getattr(part, f.name) for f in fields(cast(Any, part))}
        known = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        return replace(cast(Any, part), **{n: self.accelerator.gather(t) for n, t in known.items()})

    def _each(self, figure: int) -> list[int]:
        """Every process's figure."""
        return self.accelerator.gather(torch.tensor([figure], device=self.device)).tolist()

    def on_main(self, compute: Callable[[], T]) -> T:
        """What the main process computes; the others wait for it.

        Raises:
            Elsewhere: it failed there, where its own error is raised.
        """
        from accelerate.utils import broadcast_object_list

        told: list[Any] = [False, None]
        try:
            if self.is_main:
                told = [True, compute()]
        finally:
            broadcast_object_list(told)
        if not told[0]:
            raise Elsewhere("process 0 has failed, which every process waited for")
        return told[1]

    def look(self, compute: Callable[[], T]) -> T:
        """Figures of the policy, from passes without gradient; the main process makes them."""
        return self.on_main(compute)

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up the processes' gradients; one that no process has stays None."""
        present = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        somewhere = self.accelerator.reduce(present, "sum").tolist()
        wanted = [p for p, count in zip(parameters, somewhere, strict=True) if count]
        for parameter in wanted:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in buckets([cast(Tensor, p.grad) for p in wanted]):
            flat = torch.cat([grad.flatten() for grad in bucket])
            parts = self.accelerator.reduce(flat, "sum").split([g.numel() for g in bucket])
            for grad, part in zip(bucket, parts, strict=True):
                grad.copy_(part.view_as(grad))

    def sums(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The figures, each added up over the processes."""
        own = torch.tensor(list(figures.values()), dtype=torch.float64, device=self.device)
        return dict(zip(figures, self.accelerator.reduce(own, "sum").tolist(), strict=True))

    def largest(self, figure: float) -> float:
        """The largest of the processes' figures."""
        known = math.inf if math.isnan(figure) else figure  # a maximum may pass over a NaN
        own = torch.tensor([known], dtype=torch.float64, device=self.device)
        return float(self.accelerator.reduce(own, "max"))


def make_devices(device: str = "auto") -> Devices:
    """The devices of this process: all its own, or a share of what a launcher has started.

    Raises:
        ConfigError: the launcher was given a configuration that MHT does not work under.
    """
    if world_size() == 1:
        return Devices(device)
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise ConfigError(["base.accelerate: MHT does not train under DeepSpeed: take FSDP"])
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        from mht.trainers.sharded import Sharded

        return Sharded(device)
    return Processes(device)


def indivisible(sizes: Mapping[str, int], world: int) -> list[str]:
    """A line for each size, by path, that ``world`` processes can't split evenly."""
    return [
        f"{path}: {size} can't be split among {world} processes: set a multiple of {world}"
        for path, size in sizes.items()
        if size % world
    ]


def buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in runs of one dtype, each of about ``BUCKET`` elements at most."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (size + tensor.numel() > BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket


def widened(rollout: Rollout, more: int, pad_id: int) -> Rollout:
    """The rollout with ``more`` columns of padding on the right of its responses."""

    def widen(values: Tensor | None, fill: int = 0) -> Tensor | None:
        if values is None or not more:
            return values
        rest = (0, 0) * (values.dim() - 2)
        return functional.pad(values, (*rest, 0, more), value=fill)

    pads = {"response_ids": pad_id}
    names = ("response_ids", "response_mask", "logprobs", "trunk", "entropies", "hidden")
    return replace(rollout, **{n: widen(getattr(rollout, n), pads.get(n, 0)) for n in names})
