"""Past responses in the PPO update, and their importance weights.

The objective is the decoupled one of Hilton et al. 2021 (arXiv:2110.00641). The ratio of a past
row, like that of a fresh row, is to the proximal policy: the policy at the start of the update.
The loss of each past token counts by its importance weight between that policy and the one that
sampled it. The weight is truncated as in V-trace (Espeholt et al. 2018, arXiv:1802.01561).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mht.algorithms.batch import Replayed
from mht.algorithms.ppo.experience import Experience
from mht.core.errors import UserError
from mht.core.records import Rollout
from mht.generation.sampling.rollout import concatenated
from mht.losses import effective_share, kl_estimate, masked_mean
from mht.memory.base import Attempt

FIGURES = (
    "replay/rows",
    "replay/score_mean",
    "replay/staleness_steps",  # PPO steps since the response was sampled
    "replay/weight_mean",  # truncated
    "replay/ratio_max",  # not truncated
    "replay/truncated_share",  # of the tokens
    "replay/effective_share",  # effective sample size over tokens
    "replay/kl_nats",  # per token, from the policy that sampled to the present one
)
UNKNOWN = (
    "ppo.memory.replay.share: past responses can't be weighed without the logprobs that they were "
    "sampled with. Set it to 0, or begin with a memory that has them (ppo.memory.start)"
)


def replayed(
    attempts: Sequence[Attempt],
    items: Sequence[Mapping[str, Any]],
    *,
    step: int,
    pad_id: int,
    device: torch.device,
) -> Replayed:
    """Remembered attempts, at least one, as rows of an update.

    Args:
        attempts: b of them.
        items: each one's row of the data.
        step: the PPO step in which they are replayed.
        pad_id: fills the rows.
        device: where the tensors are made.

    Raises:
        UserError: one has no logprob for each token.
    """
    unknown = sum(len(a.logprobs) != len(a.response_ids) for a in attempts)
    if unknown:
        raise UserError(f"{UNKNOWN}: {unknown} of {len(attempts)} were remembered without them")
    prompts, prompt_mask = _padded([a.prompt_ids for a in attempts], pad_id, is_left=True)
    responses, mask = _padded([a.response_ids for a in attempts], pad_id)
    logprobs, _ = _padded([a.logprobs for a in attempts], 0.0)
    ended = torch.tensor([a.ended for a in attempts])
    columns = (prompts, prompt_mask, responses, mask, ended, logprobs)
    return Replayed(
        Rollout(*(column.to(device) for column in columns)),
        [a.score for a in attempts],
        [float(step - a.step) for a in attempts],
        items,
    )


def _padded(
    rows: Sequence[Sequence[float]], fill: float, *, is_left: bool = False
) -> tuple[Tensor, Tensor]:
    """Rows of numbers as a tensor of the fill's type, and its mask, True = a real one."""
    width = max(map(len, rows))
    values = torch.full((len(rows), width), fill)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(width - len(row), None) if is_left else slice(len(row))
        values[i, place] = torch.tensor(row, dtype=values.dtype)
        mask[i, place] = True
    return values, mask


def with_past(
    fresh: Experience, past: Experience, weights: Tensor, size: Callable[[Tensor], Tensor]
) -> Experience:
    """Fresh rows and, below them, past ones, whose policy loss counts by importance weights.

    The value head learns from the fresh rows alone: what a past response was followed by is what an
    older policy would have got. Their weight makes up for the rows without one, so that a mean over
    all rows is the mean of the fresh ones.

    Args:
        fresh: B rows.
        past: b rows, of any width.
        weights: (b, R') of the past tokens.
        size: what a mean over rows with a mask is taken over, such as their tokens.
    """
    rollout = concatenated(fresh.rollout, past.rollout)
    width = rollout.response_ids.shape[1]

    def joined(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([functional.pad(x, (0, width - x.shape[1])) for x in (a, b)])

    of_past = past.columns
    columns = {name: joined(values, of_past[name]) for name, values in fresh.columns.items()}
    ones = torch.ones_like(fresh.advantages)
    share = size(fresh.mask) / size(rollout.response_mask)
    return Experience(
        rollout,
        **columns,
        weights=joined(ones, weights),
        value_weights=joined(ones / share, torch.zeros_like(weights)),
    )


def check_past(past: Replayed) -> None:
    """Past responses can be weighed.

    Raises:
        UserError: there are no sampling logprobs, or no finite ones; or not a score for each.
    """
    rollout, behaviour = past.rollout, past.rollout.logprobs
    if behaviour is None:
        raise UserError(f"{UNKNOWN}: {len(rollout)} past responses came without them")
    bad = (~torch.isfinite(behaviour) & rollout.response_mask).any(1)
    if bad.any():
        raise UserError(f"{UNKNOWN}: {int(bad.sum())} of {len(rollout)} have none that is finite")
    if len(past.scores) != len(rollout) or not all(map(math.isfinite, past.scores)):
        raise UserError(
            f"ppo.memory.replay: {len(rollout)} past responses need a finite score each, got "
            f"{list(past.scores)!r:.80}"
        )


def replay_figures(
    past: Replayed, logprobs: Tensor, ratio: Tensor, max_weight: float
) -> dict[str, float]:
    """What the curves ``replay/...`` show, over past responses and their tokens.

    Args:
        past: b responses.
        logprobs: (b, R) under the proximal policy.
        ratio: (b, R) importance weights before truncation.
        max_weight: the truncation.
    """
    mask, behaviour = past.rollout.response_mask, past.rollout.logprobs
    assert behaviour is not None  # `check_past` has seen to it
    weights = ratio.clamp(max=max_weight)
    figures = (
        len(past.rollout),
        sum(past.scores) / len(past.scores),
        sum(past.ages) / len(past.ages),
        masked_mean(weights, mask),
        ratio[mask].max(),
        masked_mean((ratio > max_weight).float(), mask),
        effective_share(weights, mask),
        masked_mean(kl_estimate(behaviour, logprobs, "k3"), mask),
    )
    return {name: float(figure) for name, figure in zip(FIGURES, figures, strict=True)}


def no_replay() -> dict[str, float]:
    """The same figures for a step with nothing to replay yet: curves need every step."""
    return dict.fromkeys(FIGURES, 0.0)
