"""What the trainer remembers of its attempts, and which rows of the data it practises next."""

from __future__ import annotations

from mht.memory.base import Attempt, Memory, Rows, make_memory, memory

__all__ = ["Attempt", "Memory", "Rows", "make_memory", "memory"]
