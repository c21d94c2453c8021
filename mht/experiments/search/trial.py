"""One trial in this process: the hybrid trained from the fine-tuned model, looked at and dropped.

Training and validation data alone are read. Nothing of it is written: training is deterministic,
so `dvc repro` with the best values makes the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mht.config import Config
from mht.data.examples.example import read_examples
from mht.training.from_config import experiment_look, make_trainer
from mht.training.history import History
from mht.training.hybrid import Stats

if TYPE_CHECKING:
    from mht.experiments.search.start import Start


def run_trial(
    config: Config,
    looked: Config,
    start: Start,
    watch: Callable[[int, int, Mapping[str, float]], None],
    history: History,
) -> None:
    """Train the hybrid with one trial's settings.

    Args:
        config: the trial's.
        looked: without the trial's values. Every trial is looked at with the reward, the sampling
            and the prompts of these, so their figures can be compared.
        start: the model and the data.
        watch: told of every look; may raise `Pruned`.
        history: gets the curves.
    """
    trainer = make_trainer(
        start.model,
        read_examples(start.prepared / "train.parquet"),
        config.ppo,
        section="ppo",
        base=config.base,
        model=config.model,
        sft_rows=config.sft.steps * config.sft.batch_size,
    )
    validation = read_examples(start.prepared / "validation.parquet")
    look = experiment_look(trainer, looked, validation)
    cycles, every = len(config.ppo.plan), config.ppo.eval_every

    def after_cycle(cycle: int) -> Stats:
        if cycle % every and cycle != cycles:
            return {}
        figures = look.figures()
        history(figures, trainer.step)  # before it is judged: a pruned trial's curve is whole
        watch(cycle, cycles, figures)
        return {}

    trainer.train(config.ppo.plan, history, after_cycle)
