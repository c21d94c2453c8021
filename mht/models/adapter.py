"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) in a policy, by way of peft.

Only the adapters train. The weights below them stay as they are, so the policy without its adapters
is its own reference, and no weight is held twice. What is saved is a merged copy of the model: a
plain folder that needs no peft, while the adapters in training stay apart.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from torch import nn

from mht.errors import MissingPackage, ModelError

if TYPE_CHECKING:
    from mht.config import LoRAConfig


def add_adapters(model: nn.Module, layers: list[nn.Module], config: LoRAConfig) -> None:
    """Freeze the model and put adapters into its layers, in place.

    Args:
        model: a causal LM; no weight of its own trains afterwards.
        layers: those of its transformer blocks that get adapters.
        config: rank, scale and which linear maps.

    Raises:
        MissingPackage: peft is not installed.
        ModelError: a name in ``target_modules`` is that of no linear map in the layers.
    """
    if find_spec("peft") is None:
        raise MissingPackage("peft", "model.lora")
    from peft import LoraConfig, inject_adapter_in_model
    from peft.functional import cast_adapter_dtype

    targets = _targets(model, layers, config.target_modules)
    model.requires_grad_(False)
    settings = LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        target_modules=list(targets),
        use_rslora=config.use_rslora,
        fan_in_fan_out=any(not isinstance(m, nn.Linear) for m in targets.values()),
    )
    inject_adapter_in_model(settings, model)
    # beside 16-bit weights too: an update is far smaller than their rounding
    cast_adapter_dtype(model, "default", autocast_adapter_dtype=True)
    del model.peft_config  # else transformers saves an adapter in place of a model


def _targets(
    model: nn.Module, layers: list[nn.Module], wanted: str | list[str]
) -> dict[str, nn.Module]:
    """Name to linear map: those in the layers that are wanted."""
    inside = {id(module) for layer in layers for module in layer.modules()}
    linear = {
        name: module
        for name, module in model.named_modules()
        if id(module) in inside
        and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    }
    if isinstance(wanted, str):
        return linear
    found = {n: m for n, m in linear.items() if any(f".{n}".endswith(f".{w}") for w in wanted)}
    for name in wanted:
        if not any(f".{n}".endswith(f".{name}") for n in found):
            known = sorted({n.rpartition(".")[2] for n in linear})
            raise ModelError(
                f"model.lora.target_modules: no linear layer of {type(model).__name__} that trains "
                f"is named {name!r}; there are {', '.join(known)}"
            )
    return found


def adapters(model: nn.Module) -> list[nn.Module]:
    """The modules that are a linear map with an adapter beside it."""
    return [m for m in model.modules() if hasattr(m, "base_layer") and hasattr(m, "lora_A")]


def without_adapters(model: nn.Module) -> Mapping[int, nn.Module]:
    """Stand-ins for `mht.models.trunk.frozen_copy`: each adapter's id to the map beneath it."""
    return {id(m): m.base_layer for m in adapters(model)}


def merged(model: nn.Module) -> nn.Module:
    """The model as one without adapters that computes the same; the model itself where it has none.

    What has no adapter is shared with it.
    """
    substitutes = {id(m): _merge(m) for m in adapters(model)}
    if not substitutes:
        return model
    shared = {id(p): p for p in model.parameters()}
    return copy.deepcopy(model, {**shared, **substitutes})


def _merge(adapter: nn.Module) -> nn.Module:
    alone = copy.deepcopy(adapter).float()  # an update beside a 16-bit weight would be lost
    alone.merge()
    return alone.base_layer
