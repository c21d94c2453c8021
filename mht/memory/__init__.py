"""The trainer's memory of its attempts, which chooses the rows to practise next."""

from __future__ import annotations

from mht.memory.base import Attempt, Memory, Rows, make_memory, memory

__all__ = ["Attempt", "Memory", "Rows", "make_memory", "memory"]
