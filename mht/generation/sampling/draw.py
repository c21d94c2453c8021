"""One token for each row of logits: temperature, truncation, and what the distribution says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from mht.generation.sampling.seeds import RowSeeds

FLOOR = -1e30  # stands for minus infinity where 0 times it is to be 0
BLOCK = 256  # tokens of the vocabulary that a draw looks at together


def truncate_logits(
    logits: Tensor, *, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Tensor:
    """Logits with everything but the likeliest tokens set to -infinity.

    Args:
        logits: (B, V).
        top_k: keep this many (Fan et al. 2018, arXiv:1805.04833); 0 keeps all.
        top_p: keep the smallest set with at least this probability (Holtzman et al. 2019,
            arXiv:1904.09751); 1 keeps all.
        min_p: keep what has at least this share of the likeliest token's probability (Nguyen et
            al. 2024, arXiv:2407.01082); 0 keeps all.

    >>> truncate_logits(torch.tensor([[1.0, 3.0, 2.0]]), top_k=2).tolist()
    [[-inf, 3.0, 2.0]]
    """
    if 0 < top_k < logits.shape[-1]:
        threshold = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if top_p < 1.0:
        ordered, order = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        outside = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, before >= top_p)
        logits = logits.masked_fill(outside, -torch.inf)
    if min_p > 0.0:
        least = logits.amax(-1, keepdim=True) + math.log(min_p)
        logits = logits.masked_fill(logits < least, -torch.inf)
    return logits


class SharedGenerator:
    """Random numbers of a batch whose rows are written by several processes.

    Each process draws for all rows that any process still writes, and takes those of its own. So a
    row is drawn as it would be in one process, and the generator stays the same everywhere.

    Args:
        generator: in the same state in every process.
        rank: the number of this process; its rows follow those of the lower ones.
        each: gathers every process's number.
    """

    def __init__(self, generator: torch.Generator, rank: int, each: Callable[[int], list[int]]):
        self.generator, self.rank, self.each = generator, rank, each

    def uniform(self, rows: int) -> Tensor:
        """(rows, 1) float64 in [0, 1) for this process's rows."""
        return self._next(rows)[0]

    def finish(self) -> None:
        """Draw on until no process writes any more."""
        while self._next(0)[1]:
            pass

    def _next(self, rows: int) -> tuple[Tensor, int]:
        """The numbers of this process, and how many rows all processes still write."""
        counts = self.each(rows)
        numbers = _uniform(sum(counts), self.generator.device, self.generator)
        before = sum(counts[: self.rank])
        return numbers[before : before + rows], sum(counts)


Generator: TypeAlias = torch.Generator | SharedGenerator | RowSeeds


def _uniform(rows: int, device: torch.device, generator: Generator | None) -> Tensor:
    """(rows, 1) float64 in [0, 1)."""
    if isinstance(generator, SharedGenerator | RowSeeds):
        return generator.uniform(rows)
    return torch.rand(rows, 1, dtype=torch.float64, device=device, generator=generator)


class Drawn(NamedTuple):
    """One token for each row, with what its distribution at this temperature says.

    Attributes:
        tokens: (B,) int64.
        logprobs: (B,) float32 nats, before truncation.
        entropies: (B,) float32 nats, before truncation.
    """

    tokens: Tensor
    logprobs: Tensor
    entropies: Tensor


def draw(
    logits: Tensor,
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    generator: Generator | None = None,
) -> Drawn:
    """A token for each row of (B, V) logits; temperature 0 takes the likeliest."""
    scaled = logits.float() / (temperature or 1.0)
    scaled.sub_(scaled.amax(-1, keepdim=True)).clamp_(min=FLOOR)
    weights = scaled.exp()
    total = weights.sum(-1)
    expected = torch.linalg.vecdot(weights, scaled) / total
    if temperature == 0:
        tokens = logits.argmax(-1)
    elif top_k == 0 and top_p == 1.0 and min_p == 0.0:
        tokens = _inverse_cdf(weights, generator)
    else:
        shaped = truncate_logits(scaled, top_k=top_k, top_p=top_p, min_p=min_p)
        tokens = _inverse_cdf(shaped.exp_(), generator)
    of_token = scaled.gather(1, tokens[:, None]).squeeze(1)
    return Drawn(tokens, of_token - total.log(), total.log() - expected)


def _inverse_cdf(weights: Tensor, generator: Generator | None) -> Tensor:
    """(B,) draws from (B, V) weights; one random number a row, not one a token.

    First a block of the vocabulary, then a token in it: two short cumulative sums instead of one
    over the vocabulary.
    """
    batch, vocabulary = weights.shape
    padding = -vocabulary % BLOCK
    padded = functional.pad(weights, (0, padding)) if padding else weights
    blocks = padded.view(batch, -1, BLOCK)
    u = _uniform(batch, weights.device, generator)
    block, rest = _first_above(blocks.sum(-1), u)
    row = torch.arange(batch, device=weights.device)
    within, _ = _first_above(blocks[row, block], rest)
    return block * BLOCK + within


def _first_above(weights: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Where the cumulative share of (B, N) weights first exceeds u (B, 1) in [0, 1).

    Returns:
        (B,) int64, never at a weight of 0, and how far u lies within that share: (B, 1) in [0, 1).
    """
    cdf = weights.cumsum(-1, dtype=torch.float64)
    total = cdf[:, -1:]
    aim = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    index = torch.searchsorted(cdf, aim, right=True)
    width = weights.gather(1, index).double()
    into = aim - (cdf.gather(1, index) - width)
    return index.squeeze(1), (into / width).clamp(0.0, 1.0)
