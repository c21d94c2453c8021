"""Supervised fine-tuning of the base model on the human texts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mht.pipeline.seeds import over_seeds
from mht.pipeline.stage import run_stage
from mht.training.experiment import Training, train

if TYPE_CHECKING:
    from mht.config import Config
    from mht.tracking import Run


def main(config: Config, run: Run) -> None:
    """Write models/sft."""
    training = Training(
        name="sft",
        start="base",
        settings=config.sft.as_cycles(),
        section="sft",
        plan=config.sft.plan,
        eval_every=1,
        eval_examples=config.sft.eval_examples,
    )
    over_seeds(config, run, training.outs, partial(train, training, config))
    run.model("models/sft")


if __name__ == "__main__":
    run_stage(main, trains=True)
