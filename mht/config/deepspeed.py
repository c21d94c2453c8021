"""What MHT can't have under DeepSpeed, by name, before anything loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mht.config.optim import BITS
from mht.config.sft import SFTConfig
from mht.config.training import HybridConfig
from mht.config.variants import loops_of

if TYPE_CHECKING:
    from mht.config import Config

# Of a file's ``deepspeed_config``: what may be set, None for nothing, and why nothing else.
SETTINGS: dict[str, tuple[tuple[Any, ...], str]] = {
    "zero_stage": ((None, 1, 2), "set 1 or 2; FSDP shares out the weights (fsdp.yaml)"),
    "offload_optimizer_device": (
        (None, "none"),
        "set none: DeepSpeed would put an Adam of its own in the optimizer's place",
    ),
    "offload_param_device": ((None, "none"), "set none: it is ZeRO 3's"),
    "gradient_accumulation_steps": ((None, 1), "set 1: microbatch_size splits a step"),
    "gradient_clipping": ((None,), "leave it out: max_grad_norm decides"),
    "deepspeed_config_file": ((None, "none"), "leave it out, and write its settings here"),
}
DTYPE = (
    "under DeepSpeed set float32: in 16 bits it needs one dtype for all that trains and rounds "
    "the value head too"
)
SEEDS = "under DeepSpeed set 1: its engine is made once in a process"
HEADS = "under DeepSpeed leave them out: it trains no head but the value head"
# Optimisers that do not move each weight by itself, as a flat share of the weights needs it.
WHOLE = {
    "adafactor": "looks at whole matrices, which DeepSpeed cuts up",
    "adagrad": "is made anew by DeepSpeed, without its schedule",
    **dict.fromkeys(BITS, "keeps its state by whole parameters, which DeepSpeed cuts up"),
}


def setting_problems(told: Mapping[str, Any]) -> list[str]:
    """A line for each setting of a ``deepspeed_config`` that MHT can't work under."""
    return [
        f"deepspeed_config.{name} {told[name]!r}: {advice}"
        for name, (served, advice) in SETTINGS.items()
        if told.get(name) not in served
    ]


def config_problems(config: Config) -> list[str]:
    """A line for each setting of params.yaml that can't be had under DeepSpeed, by its path."""
    return list(_config_problems(config))


def _config_problems(config: Config) -> Iterator[str]:
    if config.base.seeds != 1:
        yield f"base.seeds: {SEEDS}"
    if config.model.dtype != "float32":
        yield f"model.dtype: {DTYPE}"
    sections: dict[str, SFTConfig | HybridConfig] = {"sft": config.sft, **loops_of(config)}
    for path, section in sections.items():
        if isinstance(section, HybridConfig) and section.heads:
            yield f"{path}.heads: {HEADS}"
        kind = section.optimizer.type
        if kind in WHOLE:
            yield f"{path}.optimizer.type: under DeepSpeed set adamw: {kind} {WHOLE[kind]}"
