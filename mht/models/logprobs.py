"""What a language model says of given tokens, without keeping a row of logits for each of them.

The vocabulary product is a small model's dearest part, and passing over its output is dearer
still. Here the logits live for some rows at a time. The same visit takes the log-probability, the
entropy, and the gradient with respect to the hidden states. That gradient needs nothing from above
but a factor per row. It is the idea of fused linear cross-entropy (Hsu et al. 2024, Liger Kernel,
arXiv:2410.10989).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mht.core.records import Rollout
from mht.losses import entropy, token_logprobs
from mht.models.fast.packed import linear, pack, packed_linear
from mht.models.readers import policy_model

CHUNK = {"cpu": 2**22, "cuda": 2**26}  # elements of logits alive at once


class _LinearLogprobs(torch.autograd.Function):
    """Log-probabilities of tokens, and entropies, from hidden states (N, H) and a head (V, H).

    Where the head is frozen, the way forward finds the slopes of both with respect to the hidden
    states and keeps no row of probabilities. Else it keeps all (N, V), for the head's gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        temperature: float,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor | None]:
        head_trains = any(ctx.needs_input_grad[1:3])
        slopes = _Slopes(hidden, weight) if ctx.needs_input_grad[0] and not head_trains else None
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        logprobs = hidden.new_empty(len(hidden), dtype=dtype)
        entropies = torch.empty_like(logprobs) if with_entropy else None
        kept = logprobs.new_empty(len(hidden), len(weight)) if head_trains else None
        for rows in _chunks(len(hidden), _chunk_rows(hidden.device.type, len(weight))):
            logits = linear(hidden[rows], weight, bias).to(dtype).div_(temperature)
            logits -= logits.amax(1, keepdim=True)
            of_token = logits.gather(1, tokens[rows, None])
            share = logits.exp_()
            total = share.sum(1, keepdim=True)
            share /= total
            logprobs[rows] = (of_token - total.log()).squeeze(1)
            if entropies is not None:
                surprise = _surprise(share)
                entropies[rows] = surprise.sum(1)
                if slopes is not None:
                    slopes.of_entropy(rows, share, surprise, entropies[rows])
            if slopes is not None:
                slopes.of_logprob(rows, share, tokens[rows])
            if kept is not None:
                kept[rows] = share
        ctx.temperature, ctx.head_trains = temperature, head_trains
        ctx.save_for_backward(
            *(hidden, weight, tokens, kept),
            *((slopes.logprob, slopes.entropy) if slopes is not None else (None, None)),
        )
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, grad: Tensor, entropy_grad: Any) -> tuple[Tensor | None, ...]:
        hidden, weight, tokens, share, logprob_slope, entropy_slope = ctx.saved_tensors
        none = (None,) * 3
        if not ctx.head_trains:
            to_hidden = logprob_slope * (grad[:, None] / ctx.temperature)
            if entropy_slope is not None:
                to_hidden += entropy_slope * (entropy_grad[:, None] / ctx.temperature)
            return to_hidden.to(hidden.dtype), None, None, *none
        to_logits = share * -grad[:, None]
        to_logits.scatter_add_(1, tokens[:, None], grad[:, None])
        if entropy_grad is not None:
            above = _surprise(share)
            above -= share * above.sum(1, keepdim=True)
            to_logits += above * entropy_grad[:, None]
        to_logits = to_logits.div_(ctx.temperature).to(hidden.dtype)
        return (
            to_logits @ weight if ctx.needs_input_grad[0] else None,
            to_logits.t() @ hidden if ctx.needs_input_grad[1] else None,
            to_logits.sum(0) if ctx.needs_input_grad[2] else None,
            *none,
        )


class _Slopes:
    """How each row's log-probability and entropy move with its hidden state, at temperature 1."""

    def __init__(self, hidden: Tensor, weight: Tensor):
        self.weight, self.packed = weight, pack(weight, transpose=True)
        self.logprob = torch.empty_like(hidden)
        self.entropy: Tensor | None = None

    def of_logprob(self, rows: slice, share: Tensor, tokens: Tensor) -> None:
        self.logprob[rows] = self.weight[tokens] - self._through_head(share)

    def of_entropy(self, rows: slice, share: Tensor, surprise: Tensor, entropies: Tensor) -> None:
        if self.entropy is None:
            self.entropy = torch.empty_like(self.logprob)
        self.entropy[rows] = self._through_head(surprise - share * entropies[:, None])

    def _through_head(self, x: Tensor) -> Tensor:
        """(n, V) times the weight (V, H)."""
        x = x.to(self.weight.dtype)
        return x @ self.weight if self.packed is None else packed_linear(x, self.packed)


def _surprise(share: Tensor) -> Tensor:
    """``-p log p``, 0 where p is 0."""
    tiny = torch.finfo(share.dtype).tiny
    return share.clamp(min=tiny).log_().mul_(share).neg_()


def _chunk_rows(device: str, vocabulary: int) -> int:
    return max(CHUNK.get(device, CHUNK["cuda"]) // vocabulary, 16)


def _chunks(count: int, size: int) -> list[slice]:
    """Slices of like length, none over the size."""
    parts = max(-(-count // size), 1)
    step = max(-(-count // parts), 1)
    return [slice(start, start + step) for start in range(0, count, step)]


def linear_logprobs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tokens: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of tokens under a linear head, with gradients.

    Args:
        hidden: (N, H) float.
        weight: (V, H) of the head.
        bias: (V,) of the head, or None.
        tokens: (N,) int64.
        temperature: divides the logits.
        with_entropy: also the entropy of each distribution.

    Returns:
        (N,) nats, float32 or wider; and (N,) entropies in nats, or None.
    """
    return _LinearLogprobs.apply(hidden, weight, bias, tokens, temperature, with_entropy)


def token_scores(
    model: nn.Module,
    wanted: Tensor,
    tokens: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """What a causal LM says of N tokens, each the next one after a wanted position.

    Args:
        model: a language model; see `policy_model`.
        wanted: (B, K) bool over the last K positions, N of them True.
        tokens: (N,) int64, what follows each wanted position, in row-major order.
        input_ids: (B, T) int64.
        attention_mask: (B, T) bool, True = a real token.
        temperature: divides the logits.
        with_entropy: also the entropy of each distribution.

    Returns:
        Log-probabilities (N,) and entropies (N,) or None, in nats, and hidden states (N, H).
    """
    reader = policy_model(model)
    head = reader.head
    if head is not None:
        hidden = reader.hidden(wanted, input_ids, attention_mask)
        logprobs, entropies = linear_logprobs(
            hidden,
            head.weight,
            head.bias,
            tokens,
            temperature=temperature,
            with_entropy=with_entropy,
        )
        return logprobs, entropies, hidden
    logits, hidden = reader.logits(wanted, input_ids, attention_mask)
    logprobs = token_logprobs(logits, tokens, temperature)
    return logprobs, entropy(logits, temperature) if with_entropy else None, hidden


def response_scores(
    model: nn.Module,
    rollout: Rollout,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """`token_scores` of the N real response tokens of a rollout, in row-major order.

    The last token of the longest response predicts nothing and is not fed.
    """
    return token_scores(
        model,
        rollout.response_mask,
        rollout.response_ids[rollout.response_mask],
        rollout.input_ids[:, :-1],
        rollout.attention_mask[:, :-1],
        temperature=temperature,
        with_entropy=with_entropy,
    )


@torch.no_grad()
def response_logprobs(model: nn.Module, rollout: Rollout, temperature: float) -> Tensor:
    """(B, R) log-probabilities of a rollout's response tokens under any model, 0 at padding."""
    logprobs, _, _ = response_scores(model, rollout, temperature=temperature)
    return spread(logprobs, rollout.response_mask)


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """The (N,) values at the True places of the mask, 0 elsewhere; gradients pass through.

    >>> import torch
    >>> spread(torch.tensor([1.0, 2.0]), torch.tensor([[True, False, True]])).tolist()
    [[1.0, 0.0, 2.0]]
    """
    return values.new_zeros(mask.shape).masked_scatter(mask, values)
