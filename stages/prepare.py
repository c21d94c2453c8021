"""Clean, remove duplicates, split by content and tokenise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mht.data.prepare.prepare import prepare
from mht.pipeline.stage import run_stage

if TYPE_CHECKING:
    from mht.config import Config
    from mht.tracking import Run

DROPPED = "dropped_"
SPLITS = ("train", "validation", "test")


def main(config: Config, run: Run) -> None:
    """Write the prepared splits with their statistics."""
    figures = prepare(config)
    print(said(figures))
    run.summary(figures)
    run.artifact("plots/lengths.png")


def said(figures: Mapping[str, float]) -> str:
    """The counts in a sentence; metrics/prepare.json has all of them."""
    kept = ", ".join(f"{figures[f'{split}_examples']:g} {split}" for split in SPLITS)
    dropped = [(k, v) for k, v in sorted(figures.items()) if k.startswith(DROPPED) and v]
    reasons = ", ".join(f"{v:g} {k.removeprefix(DROPPED).replace('_', ' ')}" for k, v in dropped)
    more = f"; dropped {reasons}" if reasons else ""
    return f"{kept} examples of {figures['rows_read']:g} rows{more}"


if __name__ == "__main__":
    run_stage(main)
