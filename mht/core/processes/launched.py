"""Which of the processes that `accelerate launch` or torchrun have started this one is."""

from __future__ import annotations

import os


def world_size() -> int:
    """How many processes there are; 1 where nothing was launched."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_main_process() -> bool:
    """Whether this is the process that writes files and talks."""
    return int(os.environ.get("RANK") or 0) == 0
