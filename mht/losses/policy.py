"""PPO's policy loss, and importance weights of responses that another policy sampled."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mht.losses.masked import Mean, masked_mean


def policy_losses(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    *,
    clip_range: float,
    dual_clip: float | None = None,
) -> Tensor:
    """PPO's clipped objective, as a loss of each token.

    ``max(-A * ratio, -A * clip(ratio, 1 - eps, 1 + eps))``; with ``dual_clip`` c the loss of a
    negative advantage is at most ``-A * c`` (Ye et al. 2019, arXiv:1912.09729).

    Args:
        logprobs: (B, R) of the policy being trained.
        old_logprobs: (B, R) of the policy at the start of the update, the ratio's denominator. It
            is the policy that sampled, or the proximal policy of Hilton et al. 2021
            (arXiv:2110.00641) if `importance_weights` correct the difference.
        advantages: (B, R).
        response_mask: (B, R) True = a real response token.
        clip_range: eps.
        dual_clip: c > 1, or None.

    Returns:
        (B, R), 0 at padding.
    """
    keep = response_mask.bool()
    advantages = torch.where(keep, advantages, 0.0)
    ratio = torch.exp(torch.where(keep, logprobs - old_logprobs, 0.0))
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    losses = torch.maximum(-advantages * ratio, -advantages * clipped)
    if dual_clip is not None:
        losses = torch.where(advantages < 0, torch.minimum(losses, -advantages * dual_clip), losses)
    return losses


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    *,
    clip_range: float,
    dual_clip: float | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """The mean of `policy_losses` over the real tokens of the whole batch.

    Args:
        logprobs: (B, R), as there.
        old_logprobs: (B, R), as there.
        advantages: (B, R).
        response_mask: (B, R) True = a real response token.
        clip_range: as there.
        dual_clip: as there.
        weights: (B, R) that multiply each token's loss, see `importance_weights`. The mean still
            divides by the number of tokens. None is 1 everywhere.
    """
    losses = policy_losses(
        logprobs,
        old_logprobs,
        advantages,
        response_mask,
        clip_range=clip_range,
        dual_clip=dual_clip,
    )
    return masked_mean(losses if weights is None else losses * weights, response_mask)


def clip_fraction(
    logprobs: Tensor,
    old_logprobs: Tensor,
    response_mask: Tensor,
    *,
    clip_range: float,
    mean: Mean = masked_mean,
) -> Tensor:
    """Share of the real tokens whose ratio left the clip range."""
    outside = (torch.exp(logprobs - old_logprobs) - 1).abs() > clip_range
    return mean(outside.float(), response_mask)


def importance_weights(
    logprobs: Tensor,
    behaviour_logprobs: Tensor,
    response_mask: Tensor,
    *,
    max_weight: float = math.inf,
) -> Tensor:
    """The loss weight of each token that another policy sampled: ``min(pi / mu, max_weight)``.

    pi is the proximal policy and mu the behaviour policy of the decoupled objective of Hilton et
    al. 2021 (arXiv:2110.00641). The ratio is truncated as in V-trace (Espeholt et al. 2018,
    arXiv:1802.01561). Without truncation the expected gradient of a token, given those before it,
    is that of a token sampled from pi. With it the gradient is biased towards mu and its variance
    is bounded. As in PPO, the probabilities of the tokens before it are ignored.

    Args:
        logprobs: (B, R) nats, under the policy at the start of the update.
        behaviour_logprobs: (B, R) nats, under the policy that sampled, as it sampled.
        response_mask: (B, R) True = a real response token.
        max_weight: the truncation; inf for none.

    Returns:
        (B, R), 1 at padding; no gradient.

    >>> new, old = torch.tensor([[0.6, 0.9, 0.1]]).log(), torch.tensor([[0.3, 0.1, 0.2]]).log()
    >>> mask = torch.tensor([[True, True, True]])
    >>> [round(w, 4) for w in importance_weights(new, old, mask, max_weight=4.0)[0].tolist()]
    [2.0, 4.0, 0.5]
    """
    apart = (logprobs - behaviour_logprobs).detach()
    return torch.exp(torch.where(response_mask.bool(), apart, 0.0)).clamp(max=max_weight)


def effective_share(weights: Tensor, mask: Tensor) -> Tensor:
    """Effective sample size over sample size: ``(sum w)^2 / (n sum w^2)`` (Kong 1992), in [0, 1].

    Args:
        weights: any shape, not negative.
        mask: the same shape, True = counts.

    >>> weights, mask = torch.tensor([1.0, 1.0, 2.0, 9.0]), torch.tensor([1, 1, 1, 0])
    >>> round(effective_share(weights, mask).item(), 4)  # 4^2 / (3 * 6)
    0.8889
    """
    return masked_mean(weights, mask).square() / masked_mean(weights.square(), mask).clamp(min=1e-8)
