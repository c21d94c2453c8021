"""Figures of a step beyond SFT's and PPO's own: what was written, what the progress bar shows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from mht.algorithms.batch import Stats
from mht.core.records import Scored
from mht.data.text.sample import Sample
from mht.data.text.words import chunks


def text_stats(samples: Sequence[Sample], scored: Scored) -> Stats:
    """Means of every reward node, and the share of distinct word pairs in the batch."""
    pairs = [pair for s in samples for pair in pairwise(chunks(s.response))]
    means = {
        f"reward/{name.removeprefix('reward.')}": sum(values)
        / (1 if name.endswith(".failed") else len(values))
        for name, values in scored.components.items()
        if name != "reward"
    }
    return means | {"response/distinct_2": len(set(pairs)) / max(len(pairs), 1)}


def headline(stats: Stats) -> Stats:
    """The figures shown beside the progress bar."""
    shown = {
        "loss": "sft/loss",
        "score": "ppo/score/mean",
        "kl_nats": "ppo/kl/k1_nats",
        "length": "ppo/response/length_tokens",
    }
    return {name: stats[key] for name, key in shown.items() if key in stats}
