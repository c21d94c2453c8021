"""The devices of this process: all its own, or a share of what a launcher has started."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from mht.core.processes.launched import world_size
from mht.devices.base import Devices

T = TypeVar("T")


def make_devices(device: str = "auto") -> Devices:
    """The devices of this process: all its own, or a share of what a launcher has started.

    Raises:
        ConfigError: the launcher's configuration is one that MHT does not work under.
    """
    if world_size() == 1:
        return Devices(device)
    if _is_on("ACCELERATE_USE_DEEPSPEED"):
        from mht.devices.zero import Zero

        return Zero(device)
    if _is_on("ACCELERATE_USE_FSDP"):
        from mht.devices.sharded import Sharded

        return Sharded(device)
    from mht.devices.processes import Processes

    return Processes(device)


def _is_on(switch: str) -> bool:
    """Whether the launcher has set a switch in the environment."""
    return os.environ.get(switch, "false").lower() == "true"


def on_main(compute: Callable[[], T]) -> T:
    """What the main process computes, where no trainer is there yet; the others wait for it."""
    return compute() if world_size() == 1 else make_devices().on_main(compute)
