"""Figures of a rollout: its scores, its KL to the reference, and its lengths."""

from __future__ import annotations

import math

from torch import Tensor

from mht.core.records import Rollout
from mht.losses import kl_estimate, leave_one_out, masked_mean
from mht.models.policy import TokenScores


def rollout_figures(
    rollout: Rollout,
    old: TokenScores,
    ref: Tensor,
    scores: Tensor,
    kl_coef: float,
    responses_per_prompt: int,
) -> dict[str, float]:
    """What is worth a curve of a rollout before its updates, keys ``group/name``.

    Args:
        rollout: B responses.
        old: the policy's logprobs and entropies, (B, R).
        ref: (B, R) logprobs of the reference.
        scores: (B,), before any KL.
        kl_coef: of this rollout.
        responses_per_prompt: above 1 the spread of scores within a prompt is a figure too.
    """
    mask = rollout.response_mask
    k1, k3 = (
        float((kl_estimate(old.logprobs, ref, kind) * mask).sum(1).mean()) for kind in ("k1", "k3")
    )
    within = {}
    if responses_per_prompt > 1:  # the standard deviation that a prompt's scores have
        apart = leave_one_out(scores, rollout.prompts).square().mean().sqrt()
        within["score/std_within_prompts"] = float(apart) * math.sqrt(1 - 1 / responses_per_prompt)
    return within | {
        "score/mean": float(scores.mean()),
        "score/std": float(scores.std(unbiased=False)),
        "kl/k1_nats": k1,
        "kl/k3_nats": k3,
        "kl/coef": kl_coef,
        "policy/entropy_nats": float(masked_mean(old.entropies, mask)),
        "response/length_tokens": float(rollout.lengths.float().mean()),
        "response/ended_share": float(rollout.ended.float().mean()),
    }
