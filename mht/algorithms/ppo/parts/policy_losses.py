"""Policy losses: what PPO's updates minimise at each response token."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from mht.core.component import Component, Registry, registry

if TYPE_CHECKING:
    from torch import Tensor

    from mht.algorithms.ppo.experience import Experience
    from mht.config import HybridConfig

POLICY_LOSSES = registry("policy_loss")


class PolicyLoss(Component):
    """A loss for the policy."""

    registry: ClassVar[Registry] = POLICY_LOSSES

    @abstractmethod
    def losses(self, logprobs: Tensor, batch: Experience, config: HybridConfig) -> Tensor:
        """The loss of each token, (B, R); what stands at padding does not count.

        Args:
            logprobs: (B, R) nats, of the policy being trained, with gradient.
            batch: the same tokens before the update; ``batch.old_logprobs`` are of the policy at
                its start.
            config: the section's other settings, such as ``clip_range``.
        """


@POLICY_LOSSES.register("clip")
class Clip(PolicyLoss):
    """PPO's clipped objective (arXiv:1707.06347), with ``dual_clip``'s bound (arXiv:1912.09729)."""

    type: str = "clip"

    def losses(self, logprobs: Tensor, batch: Experience, config: HybridConfig) -> Tensor:
        """As `mht.losses.policy_losses`."""
        from mht.losses import policy_losses

        return policy_losses(
            logprobs,
            batch.old_logprobs,
            batch.advantages,
            batch.mask,
            clip_range=config.clip_range,
            dual_clip=config.dual_clip,
        )


@POLICY_LOSSES.register("unclipped")
class Unclipped(PolicyLoss):
    """``-A * ratio``, the objective before clipping. Schulman et al. 2017, arXiv:1707.06347, eq. 6.

    Only the KL penalty and few epochs keep the policy near the one that sampled.
    """

    type: str = "unclipped"

    def losses(self, logprobs: Tensor, batch: Experience, config: HybridConfig) -> Tensor:
        """Each token's; ``clip_range`` and ``dual_clip`` play no part."""
        import torch

        log_ratio = torch.where(batch.mask, logprobs - batch.old_logprobs, 0.0)
        return -torch.where(batch.mask, batch.advantages, 0.0) * log_ratio.exp()
