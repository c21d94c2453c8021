"""The maths of SFT and PPO as pure functions on tensors.

Shapes: B batch, R response tokens, V vocabulary. Every ``mask`` is True (or 1) at a real response
token. Log-probabilities and KL are in nats. PPO follows Schulman et al. 2017 (arXiv:1707.06347) as
used for language models by Ziegler et al. 2019 (arXiv:1909.08593) and Stiennon et al. 2020
(arXiv:2009.01325), and on past responses as decoupled by Hilton et al. 2021 (arXiv:2110.00641).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``x`` over the True places of ``mask`` (same shape); 0 where there are none.

    >>> masked_mean(torch.tensor([1.0, 3.0, 100.0]), torch.tensor([True, True, False])).item()
    2.0
    """
    keep = mask.bool()  # where, not times: padding may hold inf or nan
    return torch.where(keep, x, 0.0).sum() / keep.sum().clamp(min=1)


def whiten(x: Tensor, mask: Tensor, like: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """``x`` shifted and scaled to mean 0 and standard deviation 1 under the mask, 0 elsewhere.

    Args:
        x: any shape.
        mask: the same shape, True = counts.
        like: other values and their mask, of any shape: ``x`` goes through the shift and the scale
            that whiten those.

    >>> whiten(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False])).tolist()
    [-1.0, 1.0, 0.0]
    """
    sample, counts = (x, mask) if like is None else like
    mean = masked_mean(sample, counts)
    spread = torch.where(counts.bool(), sample - mean, 0.0)
    centred = spread if like is None else torch.where(mask.bool(), x - mean, 0.0)
    return centred * torch.rsqrt(masked_mean(spread.square(), counts) + 1e-8)


def leave_one_out(scores: Tensor, groups: Tensor) -> Tensor:
    """Scores less the mean of the group's other scores; of all others for a row without any.

    Without bias as a baseline: it does not depend on the row's own response. RLOO, Ahmadian et al.
    2024 (arXiv:2402.14740), after Kool et al. 2019 (openreview.net/forum?id=r1lgTGL5DE).

    Args:
        scores: (B,) float.
        groups: (B,) int64, from 0 on; rows of one group are responses to one prompt.

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


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each token under its logits divided by the temperature.

    Args:
        logits: (..., V) float.
        tokens: (...) int64.
        temperature: the one used in sampling.

    Returns:
        (...) float32, nats.
    """
    scaled = logits.float().div(temperature).flatten(0, -2)
    return -functional.cross_entropy(scaled, tokens.flatten(), reduction="none").view(tokens.shape)


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of the next-token distribution: (..., V) logits to (...) nats.

    >>> round(entropy(torch.zeros(1, 4)).item(), 4)  # log 4
    1.3863
    """
    logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def kl_estimate(
    logprobs: Tensor, ref_logprobs: Tensor, kind: Literal["k1", "k2", "k3"] = "k1"
) -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens that the policy sampled.

    k1 is unbiased, k2 biased with low variance, k3 unbiased with low variance and never negative
    (Schulman, "Approximating KL divergence", joschu.net/blog/kl-approx.html).

    Args:
        logprobs: any shape, of the policy.
        ref_logprobs: the same shape, of the reference.
        kind: which estimator.

    >>> kl_estimate(torch.tensor([-1.0]), torch.tensor([-1.5]), "k1").item()
    0.5
    """
    log_ratio = logprobs - ref_logprobs
    if kind == "k1":
        return log_ratio
    if kind == "k2":
        return 0.5 * log_ratio.square()
    if kind == "k3":
        return torch.expm1(-log_ratio) + log_ratio
    raise ValueError(f"kind must be 'k1', 'k2' or 'k3', got {kind!r}")


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
    """PPO's clipped objective, as a loss: mean over the real tokens of the whole batch.

    ``max(-A * ratio, -A * clip(ratio, 1 - eps, 1 + eps))``; with ``dual_clip`` c the loss of a
    negative advantage is at most ``-A * c`` (Ye et al. 2019, arXiv:1912.09729).

    Args:
        logprobs: (B, R) of the policy being trained.
        old_logprobs: (B, R) of the policy at the start of the update, which the ratio is kept close
            to: the one that sampled, or the proximal one of Hilton et al. 2021 (arXiv:2110.00641)
            where ``weights`` make up for the difference.
        advantages: (B, R).
        response_mask: (B, R) True = a real response token.
        clip_range: eps.
        dual_clip: c > 1, or None.
        weights: (B, R) by which each token's loss counts, see `importance_weights`; the mean is
            still over the number of tokens. None is 1 everywhere.
    """
    keep = response_mask.bool()
    advantages = torch.where(keep, advantages, 0.0)
    ratio = torch.exp(torch.where(keep, logprobs - old_logprobs, 0.0))
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    losses = torch.maximum(-advantages * ratio, -advantages * clipped)
    if dual_clip is not None:
        losses = torch.where(advantages < 0, torch.minimum(losses, -advantages * dual_clip), losses)
    return masked_mean(losses if weights is None else losses * weights, response_mask)


def importance_weights(
    logprobs: Tensor,
    behaviour_logprobs: Tensor,
    response_mask: Tensor,
    *,
    max_weight: float = math.inf,
) -> Tensor:
    """What the loss of a token counts that another policy sampled: ``min(pi / mu, max_weight)``.

    The ratio of the decoupled objective of Hilton et al. 2021 (arXiv:2110.00641), between the
    proximal policy pi and the behaviour policy mu, truncated as in V-trace (Espeholt et al. 2018,
    arXiv:1802.01561): without a truncation the expected gradient of a token, given those before
    it, is that of a token sampled from pi; with one it is biased towards mu and of bounded
    variance. How likely the tokens before it were is left out, as PPO leaves it out.

    Args:
        logprobs: (B, R) nats, under the policy at the start of the update.
        behaviour_logprobs: (B, R) nats, under the policy that sampled, as it sampled.
        response_mask: (B, R) True = a real response token.
        max_weight: the truncation; inf is none.

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


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    response_mask: Tensor,
    *,
    clip_range: float | None,
    weights: Tensor | None = None,
) -> Tensor:
    """Half the squared error of the values, the change of a value clipped to +- clip_range.

    All (B, R); the larger of the clipped and the unclipped error counts, times its weight if there
    are ``weights``, averaged over real tokens.
    """
    keep = response_mask.bool()
    values, old_values, returns = (torch.where(keep, x, 0.0) for x in (values, old_values, returns))
    errors = (values - returns).square()
    if clip_range is not None:
        clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
        errors = torch.maximum(errors, (clipped - returns).square())
    return 0.5 * masked_mean(errors if weights is None else errors * weights, response_mask)


def clip_fraction(
    logprobs: Tensor, old_logprobs: Tensor, response_mask: Tensor, *, clip_range: float
) -> Tensor:
    """Share of the real tokens whose ratio left the clip range."""
    outside = (torch.exp(logprobs - old_logprobs) - 1).abs() > clip_range
    return masked_mean(outside.float(), response_mask)


def explained_variance(values: Tensor, returns: Tensor, response_mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over real tokens.

    1 is perfect, 0 is no better than a constant.
    """
    keep = response_mask.bool()
    errors, truth = (returns - values)[keep], returns[keep]
    return 1 - errors.var(unbiased=False) / truth.var(unbiased=False).clamp(min=1e-8)


class FixedKL:
    """A KL coefficient that does not move. Same face as `AdaptiveKL`."""

    def __init__(self, init: float):
        self.value = init

    def update(self, kl: float, n: int) -> None:
        """Nothing to do."""


class AdaptiveKL:
    """A KL coefficient steered towards a target (Ziegler et al. 2019, arXiv:1909.08593, 2.2).

    Args:
        init: first value.
        target: nats per response.
        horizon: responses over which it reacts.

    >>> control = AdaptiveKL(0.1, target=6.0, horizon=100)
    >>> control.update(kl=12.0, n=10)  # far above: the error is clipped to 0.2
    >>> round(control.value, 6)
    0.102
    """

    def __init__(self, init: float, target: float, horizon: float):
        self.value, self.target, self.horizon = init, target, horizon

    def update(self, kl: float, n: int) -> None:
        """Move by the clipped relative error of ``kl`` (nats per response, mean of n responses)."""
        error = min(max(kl / self.target - 1.0, -0.2), 0.2)
        self.value *= 1.0 + error * n / self.horizon
