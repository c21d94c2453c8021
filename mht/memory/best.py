"""Chooses the remembered responses that are worth imitating. A pure function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def best(
    prompts: Ints,
    scores: NDArray[np.float64],
    ended: NDArray[np.bool_],
    order: Ints,
    min_quantile: float,
) -> Ints:
    """The indices of each prompt's best response if it is good, ordered by prompt.

    A response is good if its score is at or above the quantile of all scores, and above the lowest.
    It is also good if it stands out among the responses to its own prompt. That takes two responses
    or more, and at least ``1 / (1 - min_quantile)`` (best-of-K, RAFT, Dong et al. 2023,
    arXiv:2304.06767). It must also be above their mean (self-imitation, Oh et al. 2018,
    arXiv:1806.05635). So the policy also learns hard prompts that were tried often.

    Args:
        prompts: (n,) number of each response's prompt.
        scores: (n,).
        ended: (n,) True = ended by EOS. Other responses are never chosen, as imitating them
            teaches the policy not to end.
        order: (n,) time of each response; of equal scores the newest counts.
        min_quantile: in [0, 1].

    >>> three = np.array([0, 0, 1]), np.array([0.1, 0.3, 0.9]), np.ones(3, bool), np.arange(3)
    >>> best(*three, min_quantile=0.9).tolist()  # prompt 0 has too few to be compared with itself
    [2]
    >>> best(*three, min_quantile=0.5).tolist()
    [1, 2]
    """
    if not ended.any():
        return np.zeros(0, np.int64)
    count = int(prompts.max()) + 1
    top = np.full(count, -np.inf)
    np.maximum.at(top, prompts[ended], scores[ended])
    stands_out = (top >= np.quantile(scores, min_quantile)) & (top > scores.min())
    tries = np.bincount(prompts, minlength=count)
    total = np.bincount(prompts, scores, minlength=count)
    enough = (tries >= 2) & (tries * (1 - min_quantile) > 1 - 1e-9)  # 10 x (1 - 0.9) is below 1
    mean = total / np.maximum(tries, 1)
    good = stands_out | (enough & (top - mean > 1e-9 * np.ptp(scores)))  # more than rounding
    found = np.flatnonzero(ended & good[prompts] & (scores == top[prompts]))
    newest = np.full(count, -1)
    np.maximum.at(newest, prompts[found], order[found])
    found = found[order[found] == newest[prompts[found]]]
    return found[np.argsort(prompts[found])]
