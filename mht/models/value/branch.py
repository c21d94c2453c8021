"""A value head with layers of its own: a trainable copy of the language model's top layers.

It is that of trlX (Havrilla et al. 2023, aclanthology.org/2023.emnlp-main.530).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mht.core.errors import ModelError
from mht.core.records import Rollout
from mht.models.hf.unpadded import padded
from mht.models.readers import policy_model
from mht.models.trunk import Trunk


class ValueBranch(nn.Module):
    """A linear map on a trainable copy of the model's top layers.

    It reads the output of the policy's layer below them, so it needs the policy's own pass. Then it
    runs its copy: the model's forward with everything below the copy passed over.

    Args:
        model: the policy's language model.
        reference: the frozen one, whose layers are copied: they have no adapters.
        count: how many layers.

    Raises:
        ModelError: the model has no more layers than that.
    """

    def __init__(self, model: nn.Module, reference: nn.Module, count: int):
        super().__init__()
        layers = policy_model(reference).layers
        if count >= len(layers):
            raise ModelError(
                f"ppo.value_head.num_layers: {count} leaves nothing below the branch in a model of "
                f"{len(layers)} layers; set less, or another ppo.value_head.type"
            )
        shell, below = _with_own_top(reference, count)
        self.layers = nn.ModuleList(policy_model(shell).layers[-count:])
        self.norms = nn.ModuleList(policy_model(shell).norms)
        self.output = nn.Linear(policy_model(model).width, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        # not as submodules: the rest of them is the policy's, and does not train with the branch
        self._parts = (shell, Trunk(below), policy_model(model).layers[-count - 1])
        policy_model(shell).prepare()
        self.requires_grad_(True)
        self._below: Tensor | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around the policy's pass over the rollout whose values are wanted."""

        def see(_: Any, args: Any, output: Any) -> None:
            self._below = padded(output[0] if isinstance(output, tuple) else output).detach()

        hook = self._parts[2].register_forward_hook(see)
        try:
            yield
        finally:
            hook.remove()

    def forward(self, hidden: Tensor, rollout: Rollout) -> Tensor:
        """Values (N,) float32 of the N response tokens, row-major, of the rollout just watched."""
        shell, trunk, _ = self._parts
        with trunk.replay(self._below):
            own = policy_model(shell).hidden(
                rollout.response_mask,
                rollout.input_ids[:, :-1],
                rollout.attention_mask[:, :-1],
            )
        self._below = None
        return self.output(own.float()).squeeze(-1)


def _with_own_top(model: nn.Module, count: int) -> tuple[nn.Module, list[nn.Module]]:
    """A copy with top layers and final norms of its own, sharing all other weights.

    Returns:
        The copy, and its lower layers, bottom first: modules of its own around shared weights.
    """
    reader = policy_model(model)
    layers = list(reader.layers)
    own = {id(p) for m in [*layers[-count:], *reader.norms] for p in m.parameters()}
    below = [copy.copy(layer) for layer in layers[:-count]]
    memo: dict[int, Any] = {id(p): p for p in model.parameters() if id(p) not in own}
    memo |= {id(layer): mine for layer, mine in zip(layers, below, strict=False)}
    return copy.deepcopy(model, memo), below
