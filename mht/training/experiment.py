"""One training run of the pipeline: trainer, validation, curves and the saved model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mht.config import Config, HybridConfig, SFTConfig
from mht.config.cycles import Plan, steps_of
from mht.core.outputs import replaced_folder
from mht.core.stable_files import write_json
from mht.data.examples.example import read_examples
from mht.rewards import Reward
from mht.training.from_config import make_trainer
from mht.training.history import History
from mht.training.hybrid import HybridTrainer, Stats
from mht.training.resume.checkpoint import Checkpoints
from mht.training.validation import Validation

if TYPE_CHECKING:
    from mht.tracking import Run


def train_variant(
    config: Config,
    settings: HybridConfig,
    run: Run,
    *,
    start: str,
    name: str,
    section: str,
    plan: Plan,
    eval_every: int,
    eval_examples: int,
    after: SFTConfig | None = None,
) -> None:
    """Train from a model folder; write ``models/<name>``, its curves and its last figures.

    Args:
        config: of the whole experiment.
        settings: of this run's cycles.
        run: gets every step's figures.
        start: the folder to start from.
        name: of the outputs.
        section: where the settings stand in params.yaml.
        plan: the phases of each cycle.
        eval_every: cycles between two looks at the validation prompts; 0 is never.
        eval_examples: how many of them.
        after: the SFT stage that made ``start``, if one did.
    """
    trainer = make_trainer(
        start,
        read_examples("data/prepared/train.parquet"),
        settings,
        section=section,
        base=config.base,
        model=config.model,
        after=after,
    )
    samples = any(settings.needs(name) != {"examples"} for name in steps_of(plan))
    validation = Validation(
        trainer.policy,
        trainer.responder,
        read_examples("data/prepared/validation.parquet")[:eval_examples],
        trainer.reward if samples and isinstance(trainer.reward, Reward) else None,
        seed=config.base.seed,
        batch_size=64,
    )
    devices = trainer.devices
    scratch = devices.on_main(lambda: run.scratch)  # the main process alone has a run
    history = History(run.log, hold=scratch is not None)
    checkpoints = (
        Checkpoints(scratch, every_s=config.base.checkpoint_every_s, history=history)
        if scratch
        else None
    )

    # models/<name> is written whole at the end, so what is saved on the way waits
    cycles = (scratch or Path(f".mht/scratch/{name}")) / "cycles"
    if not scratch and devices.is_main:
        shutil.rmtree(cycles, ignore_errors=True)  # of an earlier run

    def after_cycle(cycle: int) -> Stats:
        if settings.save_every and cycle and cycle % settings.save_every == 0:
            trainer.save(cycles / str(cycle))
        last = cycle == len(plan)
        wanted = eval_every and (last or cycle % eval_every == 0)
        stats = devices.look(validation.figures) if wanted else {}
        if stats and run.watch:
            run.watch(cycle, len(plan), stats)
        return stats

    trainer.train(plan, history, after_cycle, checkpoints)
    history.publish()
    if not devices.is_main:
        trainer.save(f"models/{name}")  # all take part, the main one writes
        return
    with (
        replaced_folder(f"models/{name}") as model,
        replaced_folder(f"plots/{name}") as plots,
    ):
        _write(trainer, history, cycles, model, plots)
    final: dict[str, float] = {}
    for phase in history.phases:
        final |= history.last(phase, over=1 if phase == "validation" else 5)
    write_json(f"metrics/{name}.json", final)
    run.summary(final)
    run.model(f"models/{name}")
    if checkpoints:
        checkpoints.clear()


def _write(
    trainer: HybridTrainer, history: History, cycles: Path, model: Path, plots: Path
) -> None:
    """Fill the folders of the model and of the curves."""
    trainer.save(model)
    if cycles.is_dir():
        shutil.copytree(cycles, model / "cycles")
    history.write(plots)
    if trainer.practice.memory is not None:
        trainer.practice.memory.report(model, plots)
