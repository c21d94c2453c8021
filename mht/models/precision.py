"""In which number format a model computes: named, or the one that the device has units for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mht.core.errors import ConfigError

if TYPE_CHECKING:
    import torch


def resolve_dtype(name: str, device: torch.device) -> str:
    """The name of the torch dtype that a model's weights get on a device.

    Args:
        name: "float32", "bfloat16", "float16", or "auto": bfloat16 where `has_bfloat16_units`,
            else float32.
        device: where the model will be.

    Raises:
        ConfigError: no such dtype, or float16 on a processor.
    """
    names = ("float32", "bfloat16", "float16", "auto")
    if name not in names:
        problem = f"model.dtype: should be one of {', '.join(names)}, got {name!r}"
        raise ConfigError([problem])
    if name == "auto":
        return "bfloat16" if has_bfloat16_units(device) else "float32"
    unserved = refused(name, device)
    if unserved:
        raise ConfigError([unserved])
    return name


def refused(name: str, device: torch.device) -> str | None:
    """Why a device does not serve a dtype, as a line for the user; None if it does."""
    if name == "float16" and device.type == "cpu":
        problem = "model.dtype: float16 needs a GPU, and the device is a CPU"
        return f"{problem}; set bfloat16 or float32"
    return None


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices itself instead of emulating it slowly.

    A processor does with amx_bf16 or avx512_bf16 (x86-64) or bf16 (Arm).
    """
    import torch

    if device.type == "cpu":
        found = torch.cpu.get_capabilities()
        return any(found.get(unit) for unit in ("amx_bf16", "avx512_bf16", "bf16"))
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "xpu":
        return torch.xpu.is_bf16_supported(including_emulation=False)
    return False
