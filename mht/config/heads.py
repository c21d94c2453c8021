"""Further heads: modules that learn from the policy's hidden states beside PPO.

A package adds a kind under the entry point ``mht.head``; params.yaml names heads of that type in
``ppo.heads``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mht.core.bounds import Weight
from mht.core.component import Component, Registry, registry

if TYPE_CHECKING:
    from torch import nn


class Head(Component):
    """A further head of the policy.

    Attributes:
        coef: how much its loss counts beside PPO's.
    """

    registry: ClassVar[Registry] = registry("head")

    coef: Weight = 0.1

    def make(self, width: int) -> nn.Module:
        """The module, in float32, for hidden states of this width H.

        It has ``loss(hidden, batch)``, a scalar: ``hidden`` (N, H) are the states before the N real
        response tokens, in row-major order; ``batch`` is their
        `mht.algorithms.ppo.experience.Experience`. Gradients reach the language model unless
        ``loss`` detaches ``hidden``.
        """
        raise NotImplementedError
