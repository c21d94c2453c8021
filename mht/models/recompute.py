"""Gradient checkpointing: a layer's activations are dropped, and computed again on the way back.

Chen et al. 2016 (arXiv:1604.06174), one segment a layer. Transformers' own switch works only in
training mode, which also turns dropout on, in some architectures (OPT) by the layer's own flag. So
torch's function is put around the layers here, and the model stays in evaluation mode.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mht.core.errors import ModelError
from mht.models.hf.unpadded import computed_again
from mht.models.readers import policy_model


def recompute_layers(model: nn.Module) -> None:
    """From now on each layer that trains keeps its input alone where gradients are on.

    Frozen layers below them keep nothing anyway. The same numbers come out, bit for bit on a CPU.

    Raises:
        ModelError: the architecture has no list of layers.
    """
    try:
        layers = policy_model(model).layers
    except ModelError:
        raise ModelError(
            f"model.gradient_checkpointing: {type(model).__name__} has no list of layers to "
            "compute again; set it to false"
        ) from None
    for layer in layers:
        if any(p.requires_grad for p in layer.parameters()):
            # a bound method, so that a deep copy of the layer runs the copy's weights
            layer.forward = MethodType(_forward, layer)


def _forward(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    compute = MethodType(type(layer).forward, layer)
    if not torch.is_grad_enabled():
        return compute(*args, **kwargs)
    return checkpoint(
        compute, *args, use_reentrant=False, context_fn=computed_again(layer), **kwargs
    )
