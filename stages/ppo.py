"""The cycles of one variant: ``python -m stages.ppo hybrid`` goes on from where its row starts."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from mht.checks.watched import check_watched, files_of_training
from mht.core.errors import UserError
from mht.pipeline.seeds import over_seeds
from mht.pipeline.stage import run_stage
from mht.training.experiment import Training, train

if TYPE_CHECKING:
    from mht.config import Config
    from mht.tracking import Run


def main(config: Config, run: Run) -> None:
    """Write models/<name>."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in config.baselines:
        names = ", ".join(config.baselines)
        raise UserError(f"name the variant, one of {names}; got {name!r}")
    variant, settings = config.variants[name], config.baselines[name]
    check_watched(files_of_training(settings, variant.section), run.deps)
    training = Training(
        name=name,
        start=variant.start,
        settings=settings,
        section=variant.section,
        plan=settings.plan,
        eval_every=settings.eval_every,
        eval_examples=settings.eval_prompts,
        sft_rows=variant.sft_rows,
    )
    over_seeds(config, run, training.outs, partial(train, training, config))
    run.model(f"models/{name}")


if __name__ == "__main__":
    run_stage(main, trains=True)
