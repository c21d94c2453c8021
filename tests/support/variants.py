"""The standard table of variants, as reports take it."""

from __future__ import annotations

from collections.abc import Mapping

from mht.reports.records import Entry

STARTS = {"sft_only": "sft", "hybrid": "sft"}  # the others start from the base model


def entries(steps: Mapping[str, int], batch_size: int = 8) -> list[Entry]:
    """A row for each variant with its optimiser steps; only base is not trained."""
    return [
        Entry(name, STARTS.get(name, "base"), own, name != "base", batch_size * (name != "base"))
        for name, own in steps.items()
    ]
