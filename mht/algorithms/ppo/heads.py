"""The losses of a policy's heads, beside PPO's own: the value head's is one of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from mht.algorithms.ppo.experience import Experience
from mht.config import HybridConfig
from mht.losses import value_loss
from mht.models.logprobs import spread
from mht.models.policy import Policy


class ValueTerm:
    """The loss of the value head.

    Args:
        head: estimates the values.
        config: of the clipping.
    """

    def __init__(self, head: nn.Module, config: HybridConfig):
        self.head, self.config = head, config

    def loss(self, hidden: Tensor, batch: Experience) -> Tensor:
        """See `mht.config.heads.Head.make`."""
        mask = batch.mask
        return value_loss(
            spread(self.head(hidden, batch.rollout), mask),
            batch.old_values,
            batch.returns,
            mask,
            clip_range=self.config.value_clip_range,
            weights=batch.value_weights,
            mean=self.config.aggregation.mean,
        )


class HeadTerm(NamedTuple):
    """What a head adds to the loss.

    Attributes:
        figure: the key of its loss.
        coef: how much it counts.
        head: has ``loss(hidden, batch)``.
    """

    figure: str
    coef: float
    head: Any


def head_terms(policy: Policy, config: HybridConfig) -> list[HeadTerm]:
    """A term for each head, the value head's first."""
    value = HeadTerm("value/loss", config.vf_coef, ValueTerm(policy.value_head, config))
    further = policy.further_heads.items()
    return [value, *(HeadTerm(f"heads/{n}/loss", config.heads[n].coef, h) for n, h in further)]
