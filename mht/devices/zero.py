"""DeepSpeed's ZeRO 1 and 2 (through Accelerate): each process keeps a share of the optimiser.

Rajbhandari et al. 2020 (arXiv:1910.02054). Every process has all weights, so sampling, validation
and frozen layers work as in one process. The rest is cut into flat shares, one for each process:
the optimiser's state and the float32 weights that it moves. In stage 2 the gradients are cut too:
backward passes send them to the process that keeps them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mht.config import HybridConfig
from mht.config.deepspeed import DTYPE, HEADS, SETTINGS, WHOLE, setting_problems
from mht.config.optim import CLASSES
from mht.core.errors import ConfigError, MissingPackage
from mht.devices.processes import BUCKET, PATIENCE, Processes
from mht.models.policy import Policy

if TYPE_CHECKING:
    from accelerate import Accelerator, DeepSpeedPlugin


class Zero(Processes):
    """A process among several that share out what their optimiser keeps.

    Args:
        device: "auto", "cpu" or "cuda"; each process has a device of its own.

    Raises:
        ConfigError: the launcher's settings have one that MHT does not work under.
        MissingPackage: deepspeed is not installed.
    """

    shards = True
    optimizer: SharedOptimizer

    def __init__(self, device: str = "auto"):
        super().__init__(device)
        problems = setting_problems(_settings(self.accelerator.deepspeed_plugin))
        if problems:
            raise ConfigError([f"base.accelerate: {problem}" for problem in problems])

    def _meet(self, on_cpu: bool) -> Accelerator:
        """Wait for the other processes."""
        from accelerate import Accelerator, InitProcessGroupKwargs

        if find_spec("deepspeed") is None:
            raise MissingPackage("deepspeed", "base.accelerate: distributed_type DEEPSPEED")
        if on_cpu and torch.cuda.is_available():
            raise ConfigError(["base.device: DeepSpeed takes the GPUs that are there: set 'auto'"])
        # Accelerate's cpu=True would leave DeepSpeed out
        meeting = InitProcessGroupKwargs(timeout=PATIENCE, backend="gloo" if on_cpu else "nccl")
        return Accelerator(kwargs_handlers=[meeting])

    def spread(self, policy: Policy, config: HybridConfig) -> None:
        """Check that DeepSpeed can train the policy; it is laid out when its optimiser is there.

        Raises:
            ConfigError: it computes in 16 bits, or has heads beside the value head.
        """
        if policy.further_heads:
            raise ConfigError([f"ppo.heads: {HEADS}"])
        if policy.model.dtype != torch.float32:
            raise ConfigError([f"model.dtype: {DTYPE}"])

    def share(
        self, optimizer: torch.optim.Optimizer, policy: Policy, max_grad_norm: float
    ) -> torch.optim.Optimizer:
        """The optimiser with its state shared out.

        Raises:
            ConfigError: it can't move a flat share of the weights.
        """
        self.optimizer = SharedOptimizer(self, optimizer, policy, max_grad_norm)
        return self.optimizer

    def backward(self, loss: Tensor) -> None:
        """Differentiate this process's part of a loss."""
        engine = self.optimizer.engine
        engine.backward(engine(loss * self.world))  # DeepSpeed takes the mean over the processes

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Nothing to do: DeepSpeed adds them up where they are kept."""

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Iterable[nn.Parameter],
        max_norm: float,
        *,
        allowed: bool,
    ) -> float:
        """The gradients' norm before DeepSpeed clips them, and its step.

        There is no step where the norm is not finite, or it is not ``allowed``. Without leave the
        norm is NaN, as DeepSpeed computes it in the step.
        """
        if not allowed:
            return math.nan
        optimizer.step()
        return float(self.optimizer.engine.get_global_grad_norm())  # inf where it left the step out


class SharedOptimizer(torch.optim.Optimizer):
    """An optimiser over whole parameters: each process moves its share of them.

    Its groups are those of whole parameters, for the schedule and for checkpoints, which are the
    same with and without DeepSpeed. ``inner`` has the shares: a flat tensor for each group.

    Args:
        devices: this process among the others.
        inner: an optimiser that has not stepped yet; it moves each weight by itself.
        policy: whose parameters these are.
        max_grad_norm: gradients are clipped to this norm.

    Attributes:
        engine: DeepSpeed's, whose backward passes lead to the shares.

    Raises:
        ConfigError: the optimiser looks at whole parameters.
    """

    def __init__(
        self, devices: Zero, inner: torch.optim.Optimizer, policy: Policy, max_grad_norm: float
    ):
        _check_kind(inner)
        groups = [{**group, "params": list(group["params"])} for group in inner.param_groups]
        super().__init__(groups, inner.defaults)
        self.devices, self.inner = devices, inner
        self._places = {p: i for i, p in enumerate(self._parameters())}
        self._seen: set[nn.Parameter] = set()
        for parameter in self._places:
            parameter.register_post_accumulate_grad_hook(self._seen.add)
        self._group_of, self._members = self._regroup(policy)
        inner.register_step_pre_hook(_spare_idle)
        self.engine = _engine(devices.accelerator, _Passage(policy), inner, max_grad_norm)

    def _parameters(self) -> Iterator[nn.Parameter]:
        return (p for group in self.param_groups for p in group["params"])

    def _regroup(self, policy: Policy) -> tuple[list[int], list[list[nn.Parameter]]]:
        """Give the value head groups of its own, as SFT steps have no gradient for it.

        Returns:
            Of each of ``inner``'s groups, which of these groups it is of, and its parameters.
        """
        head = set(policy.value_head.parameters())
        parts = [
            (index, part)
            for index, group in enumerate(self.param_groups)
            for of_head in (False, True)
            if (part := [p for p in group["params"] if (p in head) == of_head])
        ]
        self.inner.param_groups[:] = [
            {**self.param_groups[index], "params": part} for index, part in parts
        ]
        return [index for index, _ in parts], [list(part) for _, part in parts]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        self._seen.clear()
        self.engine.zero_grad()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Clip the gradients, move this process's share, and send it to the others."""
        of_shares = zip(self.inner.param_groups, self._group_of, self._members, strict=True)
        for share, index, members in of_shares:
            group = self.param_groups[index]
            share |= {key: value for key, value in group.items() if key != "params"}
            share["idle"] = self._seen.isdisjoint(members)
        self.engine.step()

    # -- checkpoints --------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """As an optimiser over whole parameters has it; all processes call this."""
        state: dict[int, dict[str, Any]] = {}
        for index, (flat, members) in enumerate(self._shares()):
            for key, value in self.inner.state.get(flat, {}).items():
                parts = [value] * len(members)
                if isinstance(value, Tensor) and value.shape == flat.shape:
                    parts = self._whole(value, index)
                for parameter, part in zip(members, parts, strict=True):
                    state.setdefault(self._places[parameter], {})[key] = part
        return {**super().state_dict(), "state": dict(sorted(state.items()))}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave, and take over the parameters' values."""
        from deepspeed.utils import safe_set_full_fp32_param

        super().load_state_dict({**state_dict, "state": {}})
        for parameter in self._places:
            safe_set_full_fp32_param(parameter, parameter.data)
        own: dict[int, dict[str, Any]] = {}
        for index, (flat, members) in enumerate(self._shares()):
            known = [state_dict["state"].get(self._places[p]) for p in members]
            if known[0] is None:  # these have had no step
                continue
            for key, first in known[0].items():
                values = [state[key] for state in known]
                is_whole = isinstance(first, Tensor) and first.shape == members[0].shape
                part = self._own(values, index, flat) if is_whole else first
                own.setdefault(index, {})[key] = part
        groups = self.inner.state_dict()["param_groups"]
        self.inner.load_state_dict({"state": own, "param_groups": groups})

    def _shares(self) -> Iterator[tuple[Tensor, list[nn.Parameter]]]:
        """Flat share of each group that is this process's, and the parameters of the group."""
        for group, members in zip(self.inner.param_groups, self._members, strict=True):
            yield group["params"][0], members

    def _spans(self, index: int) -> list[tuple[int, int]]:
        """Where each parameter of a group begins and ends in the flat tensor of all.

        DeepSpeed makes the parameters views of it.
        """
        starts = [p.data.storage_offset() for p in self._members[index]]
        begin = min(starts)
        pairs = zip(starts, self._members[index], strict=True)
        return [(start - begin, start - begin + p.numel()) for start, p in pairs]

    def _whole(self, share: Tensor, index: int) -> list[Tensor]:
        """All processes' shares of a group, cut into parameters."""
        flat = self.devices.accelerator.gather(share)
        pairs = zip(self._spans(index), self._members[index], strict=True)
        return [flat[start:end].view(p.shape) for (start, end), p in pairs]

    def _own(self, values: Sequence[Tensor], index: int, like: Tensor) -> Tensor:
        """Share of a group that is this process's, cut from the whole group."""
        flat = like.new_zeros(like.numel() * self.devices.world)
        for (start, end), value in zip(self._spans(index), values, strict=True):
            flat[start:end] = value.flatten()
        return flat.chunk(self.devices.world)[self.devices.rank].clone()


class _Passage(nn.Module):
    """All that trains, in the one module that DeepSpeed knows; losses pass through it unchanged."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.model, self.value_head = policy.model, policy.value_head

    def forward(self, loss: Tensor) -> Tensor:
        return loss


def _engine(
    accelerator: Accelerator, module: nn.Module, inner: torch.optim.Optimizer, max_norm: float
) -> Any:
    """DeepSpeed's engine around the module; ``inner`` moves shares from now on."""
    settings = accelerator.deepspeed_plugin.deepspeed_config
    settings["train_micro_batch_size_per_gpu"] = 1  # a number it wants and does not use
    settings["gradient_clipping"] = max_norm
    settings["managed_gradient_accumulation"] = False  # a step has as many passes as it has
    settings["zero_optimization"]["reduce_bucket_size"] = BUCKET
    engine, _ = accelerator.prepare(module, inner)
    return engine


def _spare_idle(inner: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """What had no gradient is left alone; DeepSpeed has made its gradient zero."""
    for group in inner.param_groups:
        if group["idle"]:
            for share in group["params"]:
                share.grad = None


def _check_kind(optimizer: torch.optim.Optimizer) -> None:
    for kind, reason in WHOLE.items():
        if type(optimizer).__name__ == CLASSES[kind]:
            raise ConfigError([f"optimizer.type: under DeepSpeed set adamw: {kind} {reason}"])


def _settings(plugin: DeepSpeedPlugin) -> dict[str, Any]:
    """The launcher's settings, by the names of an accelerate file's ``deepspeed_config``."""
    names = set(SETTINGS) & set(vars(plugin))
    told = {name: getattr(plugin, name) for name in names}
    return {name: value for name, value in told.items() if value != "auto"}
