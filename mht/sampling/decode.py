"""Ancestral sampling of a batch of responses, with a cache, temperature, top-k and top-p."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mht.losses import token_logprobs
from mht.models.logits import position_ids
from mht.models.trunk import Trunk
from mht.types import Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def truncate_logits(logits: Tensor, *, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Logits with everything but the likeliest tokens set to -infinity.

    Args:
        logits: (B, V).
        top_k: keep this many (Fan et al. 2018, arXiv:1805.04833); 0 keeps all.
        top_p: keep the smallest set with at least this probability (Holtzman et al. 2019,
            arXiv:1904.09751); 1 keeps all.

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
    return logits


def draw(
    logits: Tensor,
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(B,) int64, one token for each row of (B, V) logits; temperature 0 takes the likeliest."""
    if temperature == 0:
        return logits.argmax(-1)
    shaped = truncate_logits(logits / temperature, top_k=top_k, top_p=top_p)
    return _inverse_cdf(shaped.softmax(-1), generator)


def _inverse_cdf(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """(B,) draws from (B, V) probabilities; one random number a row, not one a token.

    On a CPU this takes a fraction of the time of `torch.multinomial` at vocabulary size.
    """
    cdf = probabilities.cumsum(-1, dtype=torch.float64)
    u = torch.rand(len(cdf), 1, dtype=torch.float64, device=cdf.device, generator=generator)
    return torch.searchsorted(cdf, u * cdf[:, -1:], right=True).squeeze(1)


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    *,
    response_tokens: int,
    eos_ids: Collection[int],
    pad_id: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    trunk: Trunk | None = None,
) -> Rollout:
    """Draw one response for each prompt.

    Rows that have ended leave the batch, so the work shrinks as responses end.

    Args:
        model: a causal LM.
        prompt_ids: (B, P) int64, left-padded.
        prompt_mask: (B, P) bool, True = a real token.
        response_tokens: the length limit.
        eos_ids: tokens that end a response; the EOS belongs to the response.
        pad_id: fills the responses on the right; not an EOS.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: see `truncate_logits`.
        top_p: see `truncate_logits`.
        generator: the source of randomness, on the model's device.
        trunk: the model's frozen layers, if their output is to be kept with the rollout.

    Returns:
        A rollout whose R is the longest response. Its logprobs are those of the distribution at
        this temperature (1 for greedy), before top-k and top-p.
    """
    from transformers import DynamicCache

    batch, device = prompt_ids.shape[0], prompt_ids.device
    responses = torch.full((batch, response_tokens), pad_id, device=device)
    logprobs = torch.zeros(batch, response_tokens, device=device)
    lengths = torch.zeros(batch, dtype=torch.long, device=device)
    ended = torch.zeros(batch, dtype=torch.bool, device=device)
    eos = torch.tensor(sorted(eos_ids), dtype=torch.long, device=device)

    kept: list[Tensor] = []  # the trunk's output, (B, P, H) and then (B, 1, H) for each step
    rows = torch.arange(batch, device=device)  # those still being written
    cache = DynamicCache(config=model.config)
    tokens, mask, positions = prompt_ids, prompt_mask, position_ids(prompt_mask)
    for t in range(response_tokens):
        logits = (
            model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            .logits[:, -1]
            .float()
        )
        if trunk is not None and trunk.output is not None:
            new = trunk.output.new_zeros(batch, *trunk.output.shape[1:])
            kept.append(new.index_copy_(0, rows, trunk.output))
        drawn = draw(logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        responses[rows, t] = drawn
        logprobs[rows, t] = token_logprobs(logits, drawn, temperature or 1.0)
        lengths[rows] = t + 1
        done = torch.isin(drawn, eos)
        ended[rows[done]] = True
        if done.all() or t + 1 == response_tokens:
            break
        if done.any():
            alive = (~done).nonzero().squeeze(1)
            cache.batch_select_indices(alive)
            rows, drawn, mask, positions = rows[alive], drawn[alive], mask[alive], positions[alive]
        tokens, positions = drawn[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)

    longest = int(lengths.max())
    response_mask = torch.arange(longest, device=device)[None] < lengths[:, None]
    return Rollout(
        prompt_ids,
        prompt_mask,
        responses[:, :longest],
        response_mask,
        ended,
        logprobs[:, :longest],
        torch.cat(kept, 1) if kept else None,
    )
