"""The variants' settings, a file each: a stage reruns when those of its own variant change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mht.pipeline.settings import write_settings
from mht.pipeline.stage import run_stage

if TYPE_CHECKING:
    from mht.config import Config
    from mht.tracking import Run


def main(config: Config, run: Run) -> None:
    """Write settings/<name>.json for each variant."""
    write_settings(config)
    for variant in config.variants.values():
        steps = f"{variant.optimizer_steps} optimiser steps"
        print(f"{variant.name}: from models/{variant.start}, {steps}")


if __name__ == "__main__":
    run_stage(main, tracked=False)  # it passes on what every run has
