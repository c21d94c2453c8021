"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) in a policy, by way of peft.

Only the adapters train. The weights below them stay as they are, so the policy without its adapters
is its own reference, and no weight is held twice. What is saved is a merged copy of the model: a
plain folder that needs no peft, while the adapters in training stay apart.

A model may come with an adapter of its own, as a `peft.PeftModel` or as transformers loads an
adapter's folder. Then that one trains, and the reference is the model with it as it came.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from torch import nn

from mht.config import LoRAConfig
from mht.core.errors import MissingPackage, ModelError


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


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside a `peft.PeftModel`, its adapter in its layers; any other as it is.

    Raises:
        ModelError: the adapter is not in the layers: it changes what the model reads.
    """
    if not type(model).__module__.startswith("peft."):
        return model
    config = getattr(model, "active_peft_config", None)
    if config is None or config.is_prompt_learning:
        kind = "several kinds of adapters" if config is None else f"a {config.peft_type.value}"
        raise ModelError(
            f"base_model_name: the model has {kind}, which can't be trained and merged here: give "
            "its base model, with lora={...} for a new adapter"
        )
    return model.get_base_model()


def has_adapters(model: nn.Module) -> bool:
    """Whether the model has modules of peft's in its layers."""
    return any(type(m).__module__.startswith("peft.") for m in model.modules())


def train_adapters(model: nn.Module, frozen: list[nn.Module]) -> None:
    """Freeze the model but for the LoRA adapter that it came with, in place.

    Args:
        model: a causal LM.
        frozen: its lower layers, where the adapter does not train; the embeddings below are
            frozen with them.

    Raises:
        ModelError: what it came with is not one LoRA adapter that can be trained and merged.
    """
    _check_given(model)
    still = {id(m) for layer in frozen for m in layer.modules()}
    if frozen:
        still |= {id(model.get_input_embeddings())}
    model.requires_grad_(False)
    for adapter in (m for m in adapters(model) if id(m) not in still):
        for parameter in _active(adapter):
            parameter.requires_grad_(True)


def _active(adapter: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of a module's active adapter."""
    (name,) = adapter.active_adapters
    for part in (getattr(adapter, kind) for kind in adapter.adapter_layer_names):
        if name in part:
            yield from (
                part[name].parameters() if hasattr(part[name], "parameters") else [part[name]]
            )


def _check_given(model: nn.Module) -> None:
    found = adapters(model)
    active = sorted({name for m in found for name in m.active_adapters})
    configs = [config for name, config in model.peft_config.items() if name in active]
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    ends = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    problems = {
        "no LoRA adapter that is active": not active,
        "adapters of another kind than LoRA": any(c.peft_type.value != "LORA" for c in configs),
        f"several active adapters ({', '.join(active)})": len(active) > 1,
        "whole modules or tokens that train beside its adapter": _has_wrappers(model),
        "biases that train beside its adapter": any(c.bias != "none" for c in configs),
        "an adapter on parameters (target_parameters)": any(
            type(m).__name__ == "ParamWrapper" for m in found
        ),
        "an adapter on embeddings that are tied": tied and any(id(m) in ends for m in found),
        "its adapters disabled": any(m.disable_adapters for m in found),
        "its adapter merged but still there": any(m.merged for m in found),
    }
    wrong = next((what for what, is_so in problems.items() if is_so), None)
    if wrong:
        raise ModelError(
            f"base_model_name: the model has {wrong}, which can't be trained and merged here: give "
            "model.merge_and_unload(), or unload() for the model without it"
        )


def _has_wrappers(model: nn.Module) -> bool:
    """Whether peft has put whole modules, or embeddings of single tokens, beside the model's."""
    return any(
        base.__name__ == "AuxiliaryTrainingWrapper"
        for module in model.modules()
        for base in type(module).__mro__
    )


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
    plain = copy.deepcopy(model, {**shared, **substitutes})
    # else transformers saves an adapter, or a model under the names of an adapter's weights
    if vars(plain).pop("_hf_peft_config_loaded", False):
        vars(plain).pop("_weight_conversions", None)
    vars(plain).pop("peft_config", None)
    return plain


def _merge(adapter: nn.Module) -> nn.Module:
    alone = copy.deepcopy(adapter).float()  # an update beside a 16-bit weight would be lost
    alone.merge()
    return alone.base_layer
