"""The value loss, and the explained variance of the values."""

from __future__ import annotations

import torch
from torch import Tensor

from mht.losses.masked import Mean, masked_mean


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    response_mask: Tensor,
    *,
    clip_range: float | None,
    weights: Tensor | None = None,
    mean: Mean = masked_mean,
) -> Tensor:
    """Half the squared error of the values, with a value's change clipped to +- clip_range.

    All tensors are (B, R). The larger of the clipped and the unclipped error counts, multiplied by
    ``weights`` if given and averaged by ``mean``.
    """
    keep = response_mask.bool()
    values, old_values, returns = (torch.where(keep, x, 0.0) for x in (values, old_values, returns))
    errors = (values - returns).square()
    if clip_range is not None:
        clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
        errors = torch.maximum(errors, (clipped - returns).square())
    return 0.5 * mean(errors if weights is None else errors * weights, response_mask)


def explained_variance(values: Tensor, returns: Tensor, response_mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over real tokens.

    1 is perfect, 0 is no better than a constant.
    """
    keep = response_mask.bool()
    errors, truth = (returns - values)[keep], returns[keep]
    return 1 - errors.var(unbiased=False) / truth.var(unbiased=False).clamp(min=1e-8)
