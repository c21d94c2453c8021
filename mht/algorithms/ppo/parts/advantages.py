"""Advantage estimators: how good each response token was, from rewards and values."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from mht.core.component import Component, Registry, registry

if TYPE_CHECKING:
    from torch import Tensor

    from mht.config import HybridConfig

ADVANTAGES = registry("advantage")


class Advantage(Component):
    """An advantage estimator.

    Attributes:
        whiten: advantages of a rollout are shifted and scaled to mean 0 and standard deviation 1.
    """

    registry: ClassVar[Registry] = ADVANTAGES

    whiten: bool = True

    def centred(self, scores: Tensor, groups: Tensor) -> Tensor:
        """Scores (B,) compared within groups (B,) of responses to one prompt, before any KL.

        They are called for where ``ppo.responses_per_prompt`` is above 1.
        """
        from mht.losses import leave_one_out

        return leave_one_out(scores, groups)

    @abstractmethod
    def estimate(
        self,
        rewards: Tensor,
        values: Tensor,
        response_mask: Tensor,
        groups: Tensor | None,
        config: HybridConfig,
    ) -> tuple[Tensor, Tensor]:
        """Advantages, not whitened, and returns, which the values learn; no gradient.

        Args:
            rewards: (B, R), KL penalty included.
            values: (B, R), of the state before each token.
            response_mask: (B, R) True = a real response token; right-padded.
            groups: (B,) int64 from 0 on, equal for responses to one prompt; None where each has its
                own.
            config: the section's other settings, such as ``gamma`` and ``lam``.

        Returns:
            Both (B, R), 0 at padding.
        """


@ADVANTAGES.register("gae")
class GAE(Advantage):
    """Generalised advantage estimation. Schulman et al. 2015, arXiv:1506.02438."""

    type: str = "gae"

    def estimate(
        self,
        rewards: Tensor,
        values: Tensor,
        response_mask: Tensor,
        groups: Tensor | None,
        config: HybridConfig,
    ) -> tuple[Tensor, Tensor]:
        """As `mht.losses.gae`; groups play no part."""
        from mht.losses import gae

        return gae(rewards, values, response_mask, gamma=config.gamma, lam=config.lam)
