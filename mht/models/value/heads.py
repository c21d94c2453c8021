"""Value heads on the policy's last hidden state. They give 0 at first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from mht.core.records import Rollout

ACTIVATIONS = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}


class LinearHead(nn.Linear):
    """A linear map from the last hidden state (..., H) to values (...).

    Args:
        width: H.
        detach: its loss does not reach the language model.
    """

    def __init__(self, width: int, *, detach: bool = False):
        super().__init__(width, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
        self.detach = detach

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around the policy's pass over the rollout whose values are wanted."""
        yield

    def forward(self, hidden: Tensor, rollout: Rollout | None = None) -> Tensor:
        """Values (...) float32 of hidden states (..., H)."""
        x = hidden.detach() if self.detach else hidden
        return super().forward(self._features(x.float())).squeeze(-1)

    def _features(self, hidden: Tensor) -> Tensor:
        return hidden


class MLPHead(LinearHead):
    """The same with a hidden layer below the linear map.

    Args:
        width: H.
        size: of the hidden layer.
        activation: of the hidden layer, one of ``ACTIVATIONS``.
        detach: its loss does not reach the language model.
    """

    def __init__(self, width: int, size: int, *, activation: str = "relu", detach: bool = False):
        super().__init__(size, detach=detach)
        self.inner = nn.Linear(width, size)
        self._activation = ACTIVATIONS[activation]

    def _features(self, hidden: Tensor) -> Tensor:
        return self._activation(self.inner(hidden))


class FittedHead(LinearHead):
    """A linear map that no loss trains.

    Args:
        width: H.
    """

    def __init__(self, width: int):
        super().__init__(width, detach=True)
        self.requires_grad_(False)
