"""The frozen lower layers ("trunk") of a policy, shared with its reference.

Only the top layers train, so the trunk's output for a given text never changes. It is computed once
per rollout and handed to every PPO epoch and to the reference, a frozen copy of the top layers
alone. This works on any model with a list of layers without knowing its architecture. The model's
own forward runs, but its lower layers pass a stored output through instead of computing it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn

from mht.core.errors import ModelError
from mht.models.hf.unpadded import padded, unpadded
from mht.models.readers import policy_model


def freeze_below(model: nn.Module, num_layers_unfrozen: int | Literal["all"]) -> list[nn.Module]:
    """Leave only the top layers and the norm above them trainable.

    Returns:
        The frozen layers, bottom first; none for "all".

    Raises:
        ModelError: more layers asked for than there are, or none.
    """
    if num_layers_unfrozen == "all":
        return []
    layers = policy_model(model).layers
    if not 1 <= num_layers_unfrozen <= len(layers):
        raise ModelError(
            f"model.num_layers_unfrozen: {num_layers_unfrozen} does not fit the model's "
            f"{len(layers)} layers; set 1 to {len(layers)}, or 'all'"
        )
    model.requires_grad_(False)
    top = list(layers)[len(layers) - num_layers_unfrozen :]
    for module in [*top, *policy_model(model).norms]:
        module.requires_grad_(True)
    return list(layers)[: len(layers) - num_layers_unfrozen]


def frozen_copy(model: nn.Module, substitutes: Mapping[int, nn.Module] | None = None) -> nn.Module:
    """A frozen copy of a model that shares every part in which nothing trains.

    With a trunk this copies the top layers only; with everything trainable it is a second model.

    Args:
        model: what is copied.
        substitutes: a module's id to what stands in its place in the copy, and is shared.
    """
    shared = {
        id(module): module
        for module in model.modules()
        if not any(p.requires_grad for p in module.parameters())
    }
    tied = {id(p): p for module in shared.values() for p in module.parameters()}
    memo = {**shared, **tied, **(substitutes or {})}
    return copy.deepcopy(model, memo).requires_grad_(False)


class Trunk:
    """Captures the output of the frozen layers, and replays it.

    Args:
        layers: the frozen layers, bottom first; may be empty, then there is nothing to replay.
    """

    def __init__(self, layers: list[nn.Module]):
        self.output: Tensor | None = None  # (B, T, H) of the last run that was captured
        self._replayed: Tensor | None = None
        self._as_tuple = False
        for layer in layers:
            layer.forward = self._passing(layer.forward, is_last=layer is layers[-1])
        self.depth = len(layers)
        self.exists = bool(layers)

    def _passing(self, compute: Any, *, is_last: bool) -> Any:
        def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._replayed is None:
                output = compute(hidden_states, *args, **kwargs)
                if is_last:
                    self._as_tuple = isinstance(output, tuple)
                    self.output = padded(output[0] if self._as_tuple else output)
                return output
            hidden = unpadded(self._replayed) if is_last else hidden_states
            return (hidden,) if self._as_tuple else hidden

        return forward

    @contextmanager
    def replay(self, output: Tensor | None) -> Iterator[None]:
        """Within the block the frozen layers yield ``output`` (B, T, H) instead of computing."""
        self._replayed = output
        try:
            yield
        finally:
            self._replayed = None
