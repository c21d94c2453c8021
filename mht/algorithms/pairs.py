"""Preference pairs from responses to the same prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mht.algorithms.batch import Pairs
from mht.core.records import Rollout


def best_and_worst(rollout: Rollout, scores: Sequence[float]) -> Pairs:
    """The best and the worst response to each prompt; of equals the first and the last.

    Args:
        rollout: B responses, several to each prompt.
        scores: B numbers.
    """
    given = torch.tensor(scores)
    prompts = rollout.prompts.cpu()
    chosen, rejected = [], []
    for prompt in prompts.unique():
        rows = (prompts == prompt).nonzero()[:, 0]
        order = given[rows].argsort(descending=True, stable=True)
        chosen.append(rows[order[0]])
        rejected.append(rows[order[-1]])
    best, worst = torch.stack(chosen), torch.stack(rejected)
    device = rollout.response_ids.device
    margins = (given[best] - given[worst]).to(device)
    return Pairs(rollout.rows(best.to(device)), rollout.rows(worst.to(device)), margins)
