"""A baseline of the hybrid: the same loop with one of its halves switched off.

``python -m stages.baseline sft_only`` goes on from models/sft with SFT alone;
``python -m stages.baseline ppo_only`` starts PPO from the base model.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mht.checks.watched import check_watched, files_of_training
from mht.core.errors import UserError
from mht.pipeline.stage import run_stage
from mht.training.experiment import train_variant

if TYPE_CHECKING:
    from mht.config import Config
    from mht.tracking import Run

STARTS = {"sft_only": "models/sft", "ppo_only": "models/base"}


def main(config: Config, run: Run) -> None:
    """Write models/<name>."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in STARTS:
        raise UserError(f"name the baseline, one of {', '.join(STARTS)}; got {name!r}")
    settings = getattr(config.baselines, name)
    check_watched(files_of_training(settings, f"baselines.{name}"), run.deps)
    train_variant(
        config,
        settings,
        run,
        start=STARTS[name],
        name=name,
        plan=settings.plan,
        eval_every=settings.eval_every,
        eval_examples=settings.eval_prompts,
        after=config.sft if STARTS[name] == "models/sft" else None,
    )


if __name__ == "__main__":
    run_stage(main, trains=True)
