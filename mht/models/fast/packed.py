"""Weights laid out once for the processor's matrix kernels, for passes in which nothing trains.

A product with few rows, as in decoding, spends its time rearranging the weight. On two AVX2 cores 8
rows of a vocabulary head run three times as fast on a packed copy, 64 rows twice (docs/log.md).
Packed products have no gradient, and the copy takes the weight's memory once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

SMALLEST = 2**16  # weights with fewer elements are not worth it
LARGEST = 2**30  # of all weights together: a larger model keeps its memory for itself
ROWS = 64  # what the layout is chosen for; it serves other numbers nearly as well

_frozen: Any = WeakTensorKeyDictionary()  # weight -> its version, and its packed copies


def _packs(weight: Tensor) -> bool:
    return (
        not hasattr(weight, "full_tensor")  # a sharded one is not whole here
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.dim() == 2
        and weight.numel() >= SMALLEST
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@torch.no_grad()
def pack(weight: Tensor, *, transpose: bool = False) -> Tensor | None:
    """A copy of a weight (N, K) for `packed_linear`, or None where packing does not serve.

    The copies of frozen weights are kept for as long as the weight lives.

    Args:
        weight: the weight of a linear map.
        transpose: pack its transpose.
    """
    if not _packs(weight):
        return None
    known = _frozen.get(weight)
    if known is None or known[0] != weight._version:
        known = (weight._version, {})
    if transpose not in known[1]:
        ordered = weight.t().contiguous() if transpose else weight.detach()
        known[1][transpose] = torch.ops.mkldnn._reorder_linear_weight(ordered, ROWS)
    if not weight.requires_grad:  # an optimiser changes the others, at times unseen by _version
        _frozen[weight] = known
    return known[1][transpose]


def packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., K) times a packed (N, K) weight, transposed, plus a bias; without gradient."""
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` without gradient, on a packed copy where that is faster."""
    packed = None if weight.requires_grad else pack(weight)
    return functional.linear(x, weight, bias) if packed is None else packed_linear(x, packed, bias)


@contextmanager
def packed_linears(model: nn.Module) -> Iterator[None]:
    """Within the block, and without gradients, the model's linear layers run on packed weights.

    Raises:
        RuntimeError: gradients are on.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("packed weights have no gradient: use them under torch.no_grad()")
    swapped = [m for m in model.modules() if _swaps(m)]
    if sum(m.weight.numel() for m in swapped) > LARGEST:
        swapped = []
    for module in swapped:
        module.forward = _packed_forward(module)
    try:
        yield
    finally:
        for module in swapped:
            del module.forward


def _swaps(module: nn.Module) -> bool:
    """Plain linear layers, GPT-2's transposed ones too, whose forward is their class's own."""
    kind = type(module).__name__
    is_linear = type(module) is nn.Linear or kind == "Conv1D"
    return is_linear and "forward" not in vars(module) and _packs(module.weight)


def _packed_forward(module: nn.Module) -> Callable[[Tensor], Tensor]:
    packed = pack(module.weight, transpose=type(module) is not nn.Linear)
    return partial(packed_linear, packed=packed, bias=module.bias)
