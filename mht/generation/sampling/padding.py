"""What of a batch of token ids is padding: a mask says so; without one, PAD at a row's ends is."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor


def content_mask(ids: Tensor, pad_id: int) -> Tensor:
    """(B, T) bool, False = padding: the run of PAD that a row of ids (B, T) begins or ends with.

    A PAD between two other tokens is content: only the ends of a row are ever filled up.

    >>> content_mask(torch.tensor([[3, 3, 7, 3, 8, 3]]), 3).int().tolist()
    [[0, 0, 1, 1, 1, 0]]
    """
    real = ids != pad_id
    begun = real.int().cumsum(1).bool()
    goes_on = real.int().flip(1).cumsum(1).flip(1).bool()
    return begun & goes_on


def left_padded(ids: Tensor, mask: Tensor, pad_id: int) -> tuple[Tensor, Tensor]:
    """The rows with their padding on the left, filled with PAD.

    Args:
        ids: (B, P) int64.
        mask: (B, P) bool, True = a real token; padding may be anywhere.
        pad_id: fills the padding.

    Returns:
        Ids (B, P) int64 and their mask (B, P) bool.
    """
    order = mask.int().argsort(dim=1, stable=True)
    mask = mask.gather(1, order)
    return ids.gather(1, order).masked_fill(~mask, pad_id), mask


def response_content(
    ids: Tensor, pad_id: int, eos_ids: Collection[int], mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Where the responses of a batch end: with their first EOS, or with their last real token.

    Args:
        ids: (B, R) int64, right-padded.
        pad_id: the token that fills a row's end, where there is no mask.
        eos_ids: tokens that end a response.
        mask: (B, R) bool, True = a real token; None takes the run of PAD at the end as padding.

    Returns:
        (B, R) bool, True = a token of the response, and (B,) bool, True = ended by EOS.
    """
    eos = torch.tensor(sorted(eos_ids), dtype=torch.long, device=ids.device)
    column = torch.arange(ids.shape[1], device=ids.device)
    real = ids != pad_id if mask is None else mask
    ends = torch.isin(ids, eos) & real
    last = torch.where(real, column, -1).amax(1)
    last = torch.where(ends.any(1), ends.int().argmax(1), last)
    return column <= last[:, None], ends.any(1)
