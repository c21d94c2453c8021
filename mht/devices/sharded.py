"""Fully sharded data parallel: each process holds a part of every weight (PyTorch's FSDP 2).

Weights, gradients and optimiser state are split over the processes (Zhao et al. 2023,
arXiv:2304.11277). Passes that train gather one layer at a time. Sampling would gather every layer
for every token, so the model is whole on each device while it writes, and while it is validated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from mht.config import HybridConfig
from mht.core.errors import ConfigError
from mht.core.records import Rollout
from mht.devices.processes import Processes
from mht.generation.sampling.rollout import Responder
from mht.models.context import context_window
from mht.models.policy import Policy, Weights
from mht.models.readers import policy_model

if TYPE_CHECKING:
    from accelerate.utils import FullyShardedDataParallelPlugin
    from transformers import PreTrainedModel

T = TypeVar("T")


class Sharded(Processes):
    """A process among several that share out every weight.

    Args:
        device: "auto", "cpu" or "cuda"; each process has a device of its own.
    """

    shards = True

    def __init__(self, device: str = "auto"):
        from accelerate.utils import FullyShardedDataParallelPlugin

        super().__init__(device)
        self.plugin = FullyShardedDataParallelPlugin()  # reads the launcher's environment
        problems = list(plugin_problems(self.plugin))
        if problems:
            raise ConfigError(problems)

    def spread(self, policy: Policy, config: HybridConfig) -> None:
        """Shard the model, its reference and the value head.

        Raises:
            ConfigError: models share a part, and a module can't be in two sharded ones; or the
                model computes in 16 bits.
        """
        from torch.distributed.fsdp import fully_shard

        problems = list(_unserved(policy, config))
        if problems:
            raise ConfigError(problems)
        self.models = [policy.model, policy.reference]
        for model in self.models:
            self._shard(model)
        fully_shard(policy.value_head)
        for module in (*_sharded(policy.model), *_sharded(policy.value_head)):
            module.set_gradient_divide_factor(1.0)  # the parts of a loss add up
            module.set_force_sum_reduction_for_comms(True)

    def _shard(self, model: PreTrainedModel) -> None:
        """Shard each layer, the last norms with the head, and what is left as the model's own."""
        from torch.distributed.fsdp import fully_shard

        parts = policy_model(model)
        options = {
            "reshard_after_forward": self.plugin.reshard_after_forward,
            "offload_policy": self.plugin.cpu_offload,
        }
        for layer in parts.layers:
            fully_shard(layer, **options)
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        tied = embedding.weight is head.weight  # one tensor can't be in two shards
        if not tied:
            fully_shard(embedding, **options)
        options["reshard_after_forward"] = False  # the head's weight is read after the forward
        fully_shard([*parts.norms, *[embedding] * tied, head], **options)
        fully_shard(model, offload_policy=self.plugin.cpu_offload)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within the block every process has all weights, and passes wait for no other process."""
        modules = [module for model in self.models for module in _sharded(model)]
        for module in modules:
            module.unshard()
            module.set_reshard_after_forward(False, recurse=False)
        try:
            yield
        finally:
            for module in modules:
                module.set_reshard_after_forward(True, recurse=False)
                module.reshard()
            for model in self.models:  # the head's weight is read after the model's forward
                model.get_output_embeddings().set_reshard_after_forward(False, recurse=False)

    def look(self, compute: Callable[[], T]) -> T:
        """Figures of the policy; every process makes them, as FSDP counts the passes of each."""
        with self.whole():
            found = compute()
        return self.on_main(lambda: found)  # a reward's state is the main process's alone

    def draw(
        self, responder: Responder, ids: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Rollout:
        """`Responder.draw` for the whole batch of prompts (B, P), each process its rows."""
        with self.whole():
            return super().draw(responder, ids, mask, generator)

    def by_rows(self, compute: Callable[[Rollout], T], rollout: Rollout) -> T:
        """``compute(rollout)``, a tensor (B, ...) or a dataclass of them, each process its rows."""
        try:
            return super().by_rows(compute, rollout)
        finally:
            for model in self.models:
                for module in _sharded(model):
                    module.reshard()

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Nothing to do: the backward passes have added them up."""

    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> float:
        """The gradients' norm before they are clipped to ``max_norm``."""
        norm: Any = nn.utils.clip_grad_norm_(parameters, max_norm)
        return float(norm.full_tensor())

    def weights(self, policy: Policy) -> Weights:
        """All weights whole, in every process's memory; all processes call this."""
        seen: dict[int, Tensor] = {}  # tied weights are one tensor

        def gathered(module: nn.Module) -> dict[str, Tensor]:
            state = module.state_dict(keep_vars=True)
            for value in state.values():
                if id(value) not in seen:
                    seen[id(value)] = gather(value)
            return {name: seen[id(value)] for name, value in state.items()}

        return gathered(policy.model), gathered(policy.value_head)


def gather(value: Tensor) -> Tensor:
    """A sharded tensor whole, on the CPU and without gradient; any other as it is there."""
    whole = value.full_tensor() if hasattr(value, "full_tensor") else value
    return whole.detach().cpu()


def scatter(value: Tensor, like: Tensor) -> Tensor:
    """A tensor that every process has whole, sharded as ``like`` is, if that is; no exchange."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    own = value.to(like.device)
    return distribute_tensor(own, like.device_mesh, like.placements, src_data_rank=None)


def plugin_problems(plugin: FullyShardedDataParallelPlugin) -> Iterator[str]:
    """A line for each setting of an accelerate file's ``fsdp_config`` that MHT can't work under."""
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    start = "base.accelerate: under fsdp_config set"
    if plugin.fsdp_version != 2:
        yield f"{start} fsdp_version: 2, got {plugin.fsdp_version}"
    if plugin.cpu_ram_efficient_loading:
        yield f"{start} fsdp_cpu_ram_efficient_loading: false: every process loads the weights"
    if plugin.auto_wrap_policy is not transformer_auto_wrap_policy:
        yield f"{start} fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP: each layer is a shard"


def _unserved(policy: Policy, config: HybridConfig) -> Iterator[str]:
    """A line for each setting that can't be had with shared out weights."""
    if context_window(policy.model) is not None:
        yield "model.context_window: under FSDP set null: it has not been tried"
    elif policy.trunk.exists:
        problem = "under FSDP set 'all': frozen layers are shared with the reference"
        yield f"model.num_layers_unfrozen: {problem}"
    elif any(not p.requires_grad for p in policy.model.parameters()):
        yield "model.lora: under FSDP set null: adapters share their model with the reference"
    if policy.model.dtype != torch.float32:
        yield "model.dtype: under FSDP set float32: what else has not been tried"
    if config.value_head.type in ("branch", "ridge"):
        why = {"branch": "a branch shares layers", "ridge": "it would be shared out, not fitted"}
        problem = f"under FSDP set linear or mlp: {why[config.value_head.type]}"
        yield f"ppo.value_head.type: {problem}"
    if config.heads:
        yield "ppo.heads: under FSDP leave them out: of the heads it shards the value head alone"
    if config.references:
        yield "ppo.references: under FSDP leave them out: they share weights with the reference"


def _sharded(model: nn.Module) -> list[Any]:
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]
