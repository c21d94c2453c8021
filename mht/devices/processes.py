"""One process among several that train one policy, each on its rows of every batch (Accelerate).

Every process reads the same data and draws the same random numbers. Only the passes through the
model are split by rows, and their results are gathered. So the sizes in params.yaml are those of
the whole run. Any number of processes makes the same steps, up to the rounding of sums.

Gradients are added up here, not by DistributedDataParallel. Its hooks need each backward pass to
follow one forward pass through its wrapper, equally often in all processes. MHT runs parts of the
model by themselves: the head's weight, replayed layers, the value head. The number of microbatches
may differ between processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

from mht.core.errors import ConfigError, Elsewhere, UserError
from mht.core.records import Rollout
from mht.devices.base import Devices
from mht.generation.sampling.draw import SharedGenerator
from mht.generation.sampling.rollout import Responder, widened
from mht.models.loading import resolve_device

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

BUCKET = 2**25  # elements of gradients that are added up in one go
PATIENCE = timedelta(hours=6)  # how long the others wait for the main process's rewards


class Processes(Devices):
    """One of several processes that `accelerate launch` has started.

    Args:
        device: "auto", "cpu" or "cuda"; each process has a device of its own.
    """

    def __init__(self, device: str = "auto"):
        wanted = resolve_device(device)
        if wanted.index is not None:
            problem = f"{device!r} is one device for several processes; set 'auto'"
            raise ConfigError([f"base.device: {problem}"])
        self.accelerator = self._meet(on_cpu=wanted.type == "cpu")
        self.rank = self.accelerator.process_index
        self.world = self.accelerator.num_processes
        self.device = self.accelerator.device
        if self.accelerator.mixed_precision != "no":
            problem = f"mixed_precision is {self.accelerator.mixed_precision!r}: set it to 'no'"
            raise ConfigError([f"base.accelerate: {problem}, model.dtype decides"])

    def _meet(self, on_cpu: bool) -> Accelerator:
        """Wait for the other processes."""
        from accelerate import Accelerator, InitProcessGroupKwargs

        return Accelerator(cpu=on_cpu, kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])

    def rows(self, count: int) -> slice:
        """See `Devices.rows`."""
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
        rollout = widened(rollout, right=max(self._each(width)) - width, pad_id=responder.pad_id)
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
        """See `Devices.on_main`."""
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
