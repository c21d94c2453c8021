"""The hybrid: cycles of SFT and PPO steps, from the fine-tuned model on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mht.checks.watched import check_watched, files_of_training
from mht.pipeline.stage import run_stage
from mht.training.experiment import train_variant

if TYPE_CHECKING:
    from mht.config import Config
    from mht.tracking import Run


def main(config: Config, run: Run) -> None:
    """Write models/hybrid."""
    check_watched(files_of_training(config.ppo, "ppo"), run.deps)
    train_variant(
        config,
        config.ppo,
        run,
        start="models/sft",
        name="hybrid",
        plan=config.ppo.plan,
        eval_every=config.ppo.eval_every,
        eval_examples=config.ppo.eval_prompts,
        after=config.sft,
    )


if __name__ == "__main__":
    run_stage(main, trains=True)
