"""float32 weights for the optimiser of a model that computes in 16 bits.

A step of 1e-4 of a weight is lost in bfloat16, whose neighbours are 1/256 apart. So the optimiser
moves float32 master weights, and the model computes with their rounded values (Micikevicius et al.
2018, arXiv:1710.03740).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mht.models.hf.adapter import merged
from mht.models.loading import load_causal_lm
from mht.models.policy import Policy, Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HALF = (torch.bfloat16, torch.float16)


class Masters:
    """The weights that an optimiser moves: walk through them to make one.

    A 16-bit parameter has a float32 master. Its gradient moves to the master as soon as a backward
    pass has made it, so gradients add up in float32. Any other parameter is its own master: for a
    float32 model this is the list of its parameters.

    Args:
        parameters: what trains.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self._master = {p: _master(p) for p in parameters}
        self.rounded = {p: m for p, m in self._master.items() if m is not p}
        for parameter in self.rounded:
            parameter.register_post_accumulate_grad_hook(self._take_gradient)

    def __iter__(self) -> Iterator[nn.Parameter]:
        return iter(self._master.values())

    @property
    def needs_loss_scale(self) -> bool:
        """Whether small gradients would vanish: float16 has none below 6e-8."""
        return any(p.dtype == torch.float16 for p in self.rounded)

    def of(self, parameter: nn.Parameter) -> nn.Parameter:
        """The master of a parameter that trains."""
        return self._master[parameter]

    @torch.no_grad()
    def round(self) -> None:
        """The masters' values, rounded, become the parameters' values."""
        for parameter, master in self.rounded.items():
            parameter.copy_(master)

    @torch.no_grad()
    def _take_gradient(self, parameter: nn.Parameter) -> None:
        gradient, parameter.grad = parameter.grad, None
        if gradient is None:
            return
        master = self.rounded[parameter]
        if master.grad is None:
            master.grad = gradient.float()
        else:
            master.grad += gradient

    @torch.no_grad()
    def read(self, model: PreTrainedModel, name: str | Path) -> None:
        """Begin with a folder's or hub model's own weights, where it has more bits than the model.

        Args:
            model: whose parameters these are, loaded from there.
            name: a folder or a hub name.
        """
        if not self.rounded:
            return
        exact = dict(load_causal_lm(name, dtype="float32").named_parameters())
        for key, parameter in model.named_parameters():
            if parameter in self.rounded and key in exact:
                self.rounded[parameter].copy_(exact[key])
        self.round()

    def weights(self, policy: Policy) -> Weights | None:
        """For `Policy.save`: what is rounded in its bits before that; None where nothing is."""
        if not self.rounded:
            return None
        model, head = (
            {
                name: self.rounded.get(p, p).detach()
                for name, p in module.state_dict(keep_vars=True).items()
            }
            for module in (merged(policy.model), policy.value_head)
        )
        return model, head

    def state_dict(self, module: nn.Module) -> dict[str, Tensor]:
        """The masters of a module's parameters that train, by the parameters' names."""
        named = module.named_parameters()
        return {name: self._master[p] for name, p in named if p in self._master}

    @torch.no_grad()
    def load_state_dict(self, module: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Put back what `state_dict` gave."""
        for name, master in self.state_dict(module).items():
            master.copy_(state[name])
        self.round()


def _master(parameter: nn.Parameter) -> nn.Parameter:
    if parameter.dtype not in HALF:
        return parameter
    return nn.Parameter(parameter.detach().float())
