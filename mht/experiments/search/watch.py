"""What a trial tells the study after each look at the validation prompts, and the answer."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mht.config import TuneConfig
from mht.core.errors import UserError
from mht.experiments.search.study import FIGURES, PRUNED_AT, TUNE, load_optuna, open_study
from mht.tracking import Pruned

if TYPE_CHECKING:
    import optuna

TRIAL = "MHT_TUNE_TRIAL"  # a stage's trial: its study's folder, a colon, its id
STAGE = "MHT_TUNE_STAGE"  # the stage that is the trial


def objective(figures: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The weighted sum of the figures.

    >>> objective({"validation/score": 0.75, "validation/kl_nats": 2.0},
    ...           {"validation/score": 1.0, "validation/kl_nats": -0.125})
    0.5

    Raises:
        UserError: a figure is missing or not finite.
    """
    missing = weights.keys() - figures.keys()
    if missing:
        raise UserError(f"tune.metric: no {', '.join(sorted(missing))} in {', '.join(figures)}")
    total = sum(weight * figures[name] for name, weight in weights.items())
    if not math.isfinite(total):
        raise UserError(f"the objective became {total}: training diverged")
    return total


class Watch:
    """Reports a trial's objective after each look, and ends the trial if the study says so.

    Args:
        trial: the running trial.
        weights: of the figures, as ``tune.metric`` has them.
    """

    def __init__(self, trial: optuna.Trial, weights: Mapping[str, float]):
        self.trial, self.weights = trial, weights
        study, number = trial.study, trial.number
        self.said = set(study.get_trials(deepcopy=False)[number].intermediate_values)

    def __call__(self, cycle: int, cycles: int, figures: Mapping[str, float]) -> None:
        """Take in a look after a cycle; the one before the first says nothing of the trial.

        Raises:
            Pruned: the trial is hopeless.
        """
        if cycle == 0:
            return
        value = objective(figures, self.weights)
        if cycle not in self.said:  # by the same trial before it was killed
            self.trial.report(value, cycle)
        self.trial.set_user_attr(FIGURES, {k: float(v) for k, v in figures.items()})
        if cycle < cycles and self.trial.should_prune():
            self.trial.set_user_attr(PRUNED_AT, cycle)
            raise Pruned(f"pruned after cycle {cycle} of {cycles}")


def watch_of_stage(name: str) -> Watch | None:
    """In the stage of a trial that DVC runs, what watches it."""
    place, _, number = os.environ.get(TRIAL, "").rpartition(":")
    if not place or name != os.environ.get(STAGE):
        return None
    study = open_study(Path(place))
    trial = load_optuna().trial.Trial(study, int(number))
    return Watch(trial, TuneConfig.model_validate(study.user_attrs[TUNE]).metric)
