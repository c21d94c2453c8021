"""Means and whitening under a mask."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Mean = Callable[[Tensor, Tensor], Tensor]  # of values and their mask, such as `masked_mean`


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``x`` over the True places of ``mask`` (same shape); 0 if there are none.

    >>> masked_mean(torch.tensor([1.0, 3.0, 100.0]), torch.tensor([True, True, False])).item()
    2.0
    """
    keep = mask.bool()  # where, not times: padding may hold inf or nan
    return torch.where(keep, x, 0.0).sum() / keep.sum().clamp(min=1)


def whiten(x: Tensor, mask: Tensor, like: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """``x`` shifted and scaled to mean 0 and standard deviation 1 under the mask, 0 elsewhere.

    Args:
        x: any shape.
        mask: the same shape, True = counts.
        like: other values and their mask, of any shape. ``x`` is shifted and scaled as whitens
            those values; None whitens ``x`` itself.

    >>> whiten(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False])).tolist()
    [-1.0, 1.0, 0.0]
    """
    sample, counts = (x, mask) if like is None else like
    mean = masked_mean(sample, counts)
    spread = torch.where(counts.bool(), sample - mean, 0.0)
    centred = spread if like is None else torch.where(mask.bool(), x - mean, 0.0)
    return centred * torch.rsqrt(masked_mean(spread.square(), counts) + 1e-8)
