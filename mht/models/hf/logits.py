"""Logits only where they are needed: a small model's dearest part is the vocabulary product."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from mht.models.context import context_window, windows
from mht.models.hf.unpadded import layout_of, without_padding

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def position_ids(attention_mask: Tensor) -> Tensor:
    """(B, T) positions that count real tokens only, so left padding shifts nothing.

    >>> import torch
    >>> position_ids(torch.tensor([[False, True, True]])).tolist()
    [[0, 0, 1]]
    """
    return (attention_mask.long().cumsum(1) - 1).clamp(min=0)


def logits_at(
    model: PreTrainedModel,
    wanted: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    count: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a causal LM and compute logits at some of its last positions.

    Args:
        model: any causal LM of transformers; its own forward runs, with its head fed less.
        wanted: (B, K) bool over the last K positions, True = compute logits here.
        input_ids: (B, T) int64.
        attention_mask: (B, T) bool, True = a real token.
        count: logits of the first wanted positions alone; None is all.

    Returns:
        logits (N, V) and the hidden states under them (N, H), for the N wanted positions in
        row-major order.
    """
    limit = context_window(model)
    if limit is not None:
        input_ids, attention_mask = windows(limit, wanted, input_ids, attention_mask)
        wanted = wanted.new_ones(len(input_ids), 1)
    picked: list[Tensor] = []

    def pick(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        picked.append(args[0][wanted])
        return (picked[0][:count], *args[1:])

    positions, last = position_ids(attention_mask), wanted.shape[1]
    layout = layout_of(model, wanted, attention_mask)
    passing: AbstractContextManager[None] = nullcontext()
    if layout is not None:
        wanted = layout.pack(functional.pad(wanted, (input_ids.shape[1] - last, 0)))
        input_ids, positions = layout.pack(input_ids), layout.pack(positions)
        attention_mask, last = torch.ones_like(wanted), input_ids.shape[1]
        passing = without_padding(model, layout)
    hook = model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        with passing:
            logits = model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=positions,
                use_cache=False,
                logits_to_keep=last,
            ).logits
    finally:
        hook.remove()
    return logits, picked[0]
