"""Aggregations: how a minibatch's losses of tokens become one number."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from mht.core.component import Component, Registry, registry

if TYPE_CHECKING:
    from torch import Tensor

AGGREGATIONS = registry("aggregation")


class Aggregation(Component):
    """A mean over a minibatch.

    A minibatch may be computed in parts. The sum of the parts' means, each times the part's share
    of the minibatch's `size`, must be the mean of the whole.
    """

    registry: ClassVar[Registry] = AGGREGATIONS

    @abstractmethod
    def size(self, response_mask: Tensor) -> Tensor:
        """How much the mean of these rows (B, R) counts beside that of others; a scalar."""

    @abstractmethod
    def mean(self, losses: Tensor, response_mask: Tensor) -> Tensor:
        """The mean of losses (B, R) under the mask, True = a real response token; a scalar."""


@AGGREGATIONS.register("token_mean")
class TokenMean(Aggregation):
    """The mean over all tokens: a long response counts more than a short one."""

    type: str = "token_mean"

    def size(self, response_mask: Tensor) -> Tensor:
        """The number of tokens."""
        return response_mask.sum()

    def mean(self, losses: Tensor, response_mask: Tensor) -> Tensor:
        """As `mht.losses.masked_mean`."""
        from mht.losses import masked_mean

        return masked_mean(losses, response_mask)


@AGGREGATIONS.register("sequence_mean")
class SequenceMean(Aggregation):
    """The mean over responses of each one's mean over its tokens. GRPO, arXiv:2402.03300, eq. 3."""

    type: str = "sequence_mean"

    def size(self, response_mask: Tensor) -> Tensor:
        """The number of responses."""
        return response_mask.any(1).sum()

    def mean(self, losses: Tensor, response_mask: Tensor) -> Tensor:
        """Every response counts the same."""
        import torch

        sums = torch.where(response_mask, losses, 0.0).sum(1)
        means = sums / response_mask.sum(1).clamp(min=1)
        return means.sum() / self.size(response_mask).clamp(min=1)
