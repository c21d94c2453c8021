"""Supervised fine-tuning of the base model on the human texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mht.pipeline.stage import run_stage
from mht.training.experiment import train_variant

if TYPE_CHECKING:
    from mht.config import Config
    from mht.tracking import Run


def main(config: Config, run: Run) -> None:
    """Write models/sft."""
    train_variant(
        config,
        config.sft.as_cycles(),
        run,
        start="models/base",
        name="sft",
        section="sft",
        plan=config.sft.plan,
        eval_every=1,
        eval_examples=config.sft.eval_examples,
    )


if __name__ == "__main__":
    run_stage(main, trains=True)
