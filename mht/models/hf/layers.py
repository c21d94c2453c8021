"""Where a model of transformers keeps its layers, and the norms above them."""

from __future__ import annotations

from torch import nn

from mht.core.errors import ModelError


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The list of transformer blocks of a causal LM, bottom first.

    Raises:
        ModelError: the architecture has no such list.
    """
    count = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ModelError(
        f"model.num_layers_unfrozen: {type(model).__name__} has no list of {count} layers to "
        "freeze; set it to 'all'"
    )


def final_norms(model: nn.Module) -> list[nn.Module]:
    """Norms that stand beside the list of layers: those that its output goes through."""
    layers = decoder_layers(model)
    owner = next(m for m in model.modules() if any(child is layers for child in m.children()))
    norms = {n: m for n, m in owner.named_children() if "norm" in type(m).__name__.lower()}
    return [m for name, m in norms.items() if "emb" not in name]  # BLOOM has one below the layers
