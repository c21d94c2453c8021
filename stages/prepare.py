"""Clean, remove duplicates, split by content and tokenise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mht.data.prepare.prepare import prepare
from mht.pipeline.stage import run_stage

if TYPE_CHECKING:
    from mht.config import Config
    from mht.tracking import Run


def main(config: Config, run: Run) -> None:
    """Write the prepared splits with their statistics."""
    figures = prepare(config)
    for name, value in sorted(figures.items()):
        print(f"{name}: {value:g}")
    run.summary(figures)
    run.artifact("plots/lengths.png")


if __name__ == "__main__":
    run_stage(main)
