"""Rewards per token from scores and KL, and advantages from rewards."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def leave_one_out(scores: Tensor, groups: Tensor) -> Tensor:
    """Scores minus the mean of the group's other scores; of all other rows for a group of one.

    The baseline adds no bias, as it does not depend on the row's own response. RLOO, Ahmadian et
    al. 2024 (arXiv:2402.14740), after Kool et al. 2019 (openreview.net/forum?id=r1lgTGL5DE).

    Args:
        scores: (B,) float.
        groups: (B,) int64 from 0; the rows of a group are responses to the same prompt.

    Returns:
        (B,). A single row keeps its score.

    >>> leave_one_out(torch.tensor([1.0, 3.0, 8.0, 8.0]), torch.tensor([0, 0, 1, 1])).tolist()
    [-2.0, 2.0, 0.0, 0.0]
    """
    count = int(groups.max()) + 1
    sums = scores.new_zeros(count).index_add(0, groups, scores)
    others = groups.bincount(minlength=count)[groups] - 1
    alone = (scores.sum() - scores) / max(len(scores) - 1, 1)
    return scores - torch.where(others > 0, (sums[groups] - scores) / others.clamp(min=1), alone)


def token_rewards(
    scores: Tensor, kl: Tensor, response_mask: Tensor, kl_coef: float | Tensor
) -> Tensor:
    """Rewards per token: the KL penalty everywhere, the score at the last real token.

    Args:
        scores: (B,) one per response.
        kl: (B, R) nats per token.
        response_mask: (B, R) True = a real response token, EOS included; right-padded.
        kl_coef: reward lost per nat.

    Returns:
        (B, R), 0 at padding.

    >>> mask = torch.tensor([[True, True, False]])
    >>> token_rewards(torch.tensor([1.0]), torch.tensor([[0.5, 0.5, 9.0]]), mask, 0.5).tolist()
    [[-0.25, 0.75, 0.0]]
    """
    rewards = torch.where(response_mask.bool(), -kl_coef * kl, 0.0)
    last = (response_mask.long().sum(1) - 1).clamp(min=0)
    placed = functional.one_hot(last, response_mask.shape[1]) * response_mask
    return rewards + placed * scores[:, None]


def gae(
    rewards: Tensor, values: Tensor, response_mask: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv:1506.02438).

    ``delta_t = r_t + gamma * V_{t+1} - V_t`` and ``A_t = delta_t + gamma * lam * A_{t+1}``, with
    ``V`` and ``A`` 0 after the last real token; returns are ``A + V``, before any whitening.

    Args:
        rewards: (B, R).
        values: (B, R), of the state before each token.
        response_mask: (B, R) True = a real response token; right-padded.
        gamma: discount per token.
        lam: 0 is one-step temporal difference, 1 is Monte Carlo.

    Returns:
        advantages (B, R) and returns (B, R), 0 at padding.

    >>> x, mask = torch.tensor([[0.0, 0.0, 0.0, 1.0]]), torch.ones(1, 4, dtype=torch.bool)
    >>> [round(v, 5) for v in gae(x, x, mask, gamma=0.9, lam=0.95)[1][0].tolist()]
    [0.65792, 0.7695, 0.9, 1.0]
    """
    keep = response_mask.to(values.dtype)
    rewards, values = (torch.where(response_mask.bool(), x, 0.0) for x in (rewards, values))
    advantages = torch.zeros_like(values)
    after_advantage = after_value = values.new_zeros(values.shape[0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * after_value - values[:, t]
        after_advantage = (delta + gamma * lam * after_advantage) * keep[:, t]
        after_value = values[:, t]
        advantages[:, t] = after_advantage
    return advantages, advantages + values
