"""One training of the pipeline: trainer, validation, curves and the saved model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mht.config import Config, HybridConfig
from mht.config.cycles import Plan, steps_of
from mht.core.stable_files import write_json
from mht.data.examples.example import read_examples
from mht.devices.make import on_main
from mht.fresh.base import model_folder
from mht.rewards import Reward
from mht.training.from_config import make_trainer
from mht.training.history import History
from mht.training.hybrid import HybridTrainer, Stats
from mht.training.resume.checkpoint import Checkpoints
from mht.training.validation import Validation

if TYPE_CHECKING:
    from mht.tracking import Run

MODEL, PLOTS, METRICS = "model", "plots", "metrics.json"


@dataclass(frozen=True)
class Training:
    """A training of the pipeline, for all its training seeds.

    Attributes:
        name: of its outs.
        start: the model that it starts from: "base", "sft" or a variant.
        settings: of its cycles.
        section: where they stand in params.yaml.
        plan: the phases of each cycle.
        eval_every: cycles between two looks at the validation prompts; 0 is never.
        eval_examples: how many of them.
        sft_rows: rows that the start's SFT steps have seen.
    """

    name: str
    start: str
    settings: HybridConfig
    section: str
    plan: Plan
    eval_every: int
    eval_examples: int
    sft_rows: int = 0

    @property
    def outs(self) -> dict[str, str]:
        """What a training makes, to the out that it becomes."""
        return {
            MODEL: f"models/{self.name}",
            PLOTS: f"plots/{self.name}",
            METRICS: f"metrics/{self.name}.json",
        }


def train(training: Training, experiment: Config, config: Config, run: Run, folder: Path) -> None:
    """Train with one seed; write model, curves and last figures into a folder.

    Args:
        training: what to do.
        experiment: its settings, of all seeds.
        config: the same of one seed.
        run: gets every step's figures.
        folder: for the results, empty.
    """
    settings, seed = training.settings, config.base.seed
    trainer = make_trainer(
        on_main(lambda: model_folder(training.start, experiment, seed)),
        read_examples("data/prepared/train.parquet"),
        settings,
        section=training.section,
        base=config.base,
        model=config.model,
        sft_rows=training.sft_rows,
    )
    devices, plan = trainer.devices, training.plan
    validation = _validation(trainer, training, seed)
    scratch = devices.on_main(lambda: run.scratch)  # the main process alone has a run
    history = History(run.log, hold=scratch is not None)
    checkpoints = None
    if scratch:
        checkpoints = Checkpoints(scratch, every_s=config.base.checkpoint_every_s, history=history)
    cycles = (scratch or folder) / "cycles"  # models saved on the way, until the last one is there

    def after_cycle(cycle: int) -> Stats:
        if settings.save_every and cycle and cycle % settings.save_every == 0:
            trainer.save(cycles / str(cycle))
        last, every = cycle == len(plan), training.eval_every
        stats = devices.look(validation.figures) if every and (last or not cycle % every) else {}
        if stats and run.watch:
            run.watch(cycle, len(plan), stats)
        return stats

    trainer.train(plan, history, after_cycle, checkpoints)
    history.publish()
    trainer.save(folder / MODEL)  # all take part, the main one writes
    if devices.is_main:
        _write(trainer, history, cycles, folder)
        run.summary(final := history.final())
        write_json(folder / METRICS, final)


def _validation(trainer: HybridTrainer, training: Training, seed: int) -> Validation:
    settings, reward = training.settings, trainer.reward
    samples = any(settings.needs(name) != {"examples"} for name in steps_of(training.plan))
    return Validation(
        trainer.policy,
        trainer.responder,
        read_examples("data/prepared/validation.parquet")[: training.eval_examples],
        reward if samples and isinstance(reward, Reward) else None,
        seed=seed,
        batch_size=64,
    )


def _write(trainer: HybridTrainer, history: History, cycles: Path, folder: Path) -> None:
    """Add to the folder what is there beside the model."""
    if cycles.is_dir():
        shutil.copytree(cycles, folder / MODEL / "cycles")
        shutil.rmtree(cycles)
    history.write(folder / PLOTS)
    if trainer.practice.memory is not None:
        trainer.practice.memory.report(folder / MODEL, folder / PLOTS)
