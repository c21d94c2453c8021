"""The study: an Optuna journal in a folder, which a killed search finds again.

Each trial seeds the sampler anew by its number. A trial that was running when the search was killed
goes on under its number with its values. So a search that was killed is the same as one that was
not.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import random
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mht.config import Config, TuneConfig
from mht.core.errors import MissingPackage, UserError

if TYPE_CHECKING:
    import optuna

JOURNAL, NAME = "journal.log", "mht"
NO_RESULT = ("base.experiment", "base.checkpoint_every_s", "benchmark", "baselines", "evaluate")
ID, IDENTITY, TUNE = "id", "identity", "tune"  # what the study remembers of itself
PRUNED_AT, REASON, FIGURES, EXPERIMENT = "pruned_at", "reason", "figures", "experiment"  # a trial


def load_optuna() -> Any:
    """The package, quiet.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise MissingPackage("optuna", "mht tune") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("optuna").setLevel(logging.ERROR)
    return optuna


def open_study(folder: Path, config: Config | None = None, *, mode: str = "") -> optuna.Study:
    """The study in a folder; with a config it is begun where there is none.

    Raises:
        UserError: it is a search of something else, or there is none.
    """
    optuna = load_optuna()
    file = folder / JOURNAL
    if config is None and not file.exists():
        raise UserError(f"{folder.name}: there is no search of this name yet: `mht tune` it first")
    folder.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(file)))
    known = optuna.study.get_all_study_names(storage)
    direction = config.tune.direction if config else None
    if NAME not in known:
        if config is None:
            raise UserError(f"{folder.name}: the search has not begun yet: `mht tune` it first")
        optuna.create_study(storage=storage, study_name=NAME, direction=direction)
    study = optuna.load_study(storage=storage, study_name=NAME)
    if config is not None:
        _introduce(study, folder, config, mode)
    tune = TuneConfig.model_validate(study.user_attrs[TUNE])
    study.pruner = make_pruner(tune, config.ppo.cycles if config else None)
    return study


def _introduce(study: optuna.Study, folder: Path, config: Config, mode: str) -> None:
    """Tell a new study what it is; refuse one that is another."""
    own = identity(config, mode)
    theirs = study.user_attrs.get(IDENTITY, own)
    if theirs != own:
        changed = sorted(key for key in own if theirs.get(key) != own[key])
        parts = "space" if "space" in changed else ", ".join(changed)  # it decides the settings
        raise UserError(
            f"{folder.name}: the search of this name had another {parts}, so its trials can't be "
            "compared with new ones. Give this one a --name, or start over with --fresh"
        )
    study.set_user_attr(IDENTITY, own)
    study.set_user_attr(TUNE, config.tune.model_dump(mode="json"))
    if ID not in study.user_attrs:
        study.set_user_attr(ID, uuid.uuid4().hex)


def identity(config: Config, mode: str) -> dict[str, str]:
    """What the trials of one search share; of the settings those that it does not search.

    A reward stays as it is though a part of it is searched: trials are looked at with it.
    """
    settings = config.model_dump(mode="json")
    searched = [path for path in config.tune.space if not path.startswith("ppo.reward")]
    for path in (*NO_RESULT, *searched):
        _forget(settings, path)
    tune = config.tune.model_dump(mode="json")
    parts = {"settings": settings, "space": tune["space"], "direction": tune["direction"]}
    parts |= {"metric": tune["metric"], "mode": mode}
    texts = {key: json.dumps(part, sort_keys=True) for key, part in parts.items()}
    return {key: hashlib.sha256(text.encode()).hexdigest()[:16] for key, text in texts.items()}


def _forget(settings: Any, path: str) -> None:
    *above, key = path.split(".")
    for name in above:
        settings = settings.get(name) if isinstance(settings, dict) else None
    if isinstance(settings, dict):
        settings.pop(key, None)


def make_sampler(tune: TuneConfig, number: int) -> Any:
    """The sampler for the trial of this number; a grid's values are given, not drawn."""
    samplers = load_optuna().samplers
    kind = samplers.TPESampler if tune.sampler == "tpe" else samplers.RandomSampler
    mixed = hashlib.sha256(f"{tune.seed} {number}".encode()).digest()[:4]
    return kind(seed=int.from_bytes(mixed, "big"))


def make_pruner(tune: TuneConfig, cycles: int | None) -> Any:
    """What ends hopeless trials; ``cycles`` is the greatest number of them."""
    pruners = load_optuna().pruners
    if tune.pruner == "none":
        return pruners.NopPruner()
    if tune.pruner == "hyperband":
        return pruners.HyperbandPruner(max_resource=cycles or "auto")
    return pruners.MedianPruner(tune.startup_trials, tune.warmup_cycles)


def trials_wanted(tune: TuneConfig) -> int:
    """How many trials there are to be; a grid ends with its last point."""
    return min(tune.trials, len(grid(tune))) if tune.sampler == "grid" else tune.trials


def grid(tune: TuneConfig) -> list[dict[str, Any]]:
    """Every combination, shuffled by the seed, so that the first few tell of all settings."""
    every = itertools.product(*(searched.grid or [] for searched in tune.space.values()))
    points = [dict(zip(tune.space, values, strict=True)) for values in every]
    random.Random(tune.seed).shuffle(points)
    return points


def next_trial(study: optuna.Study, tune: TuneConfig) -> optuna.Trial:
    """The trial that was running when the search was killed, else a new one."""
    optuna = load_optuna()
    states = optuna.trial.TrialState
    if tune.sampler == "grid" and not _in(study, states.RUNNING, states.WAITING):
        points = grid(tune)
        study.enqueue_trial(points[len(study.trials) % len(points)])
    running, waiting = _in(study, states.RUNNING), _in(study, states.WAITING)
    number = (running or waiting)[0].number if running or waiting else len(study.trials)
    study.sampler = make_sampler(tune, number)
    return optuna.trial.Trial(study, running[0]._trial_id) if running else study.ask()


def _in(study: optuna.Study, *states: Any) -> list[Any]:
    return study.get_trials(deepcopy=False, states=states)


def suggest(trial: optuna.Trial, tune: TuneConfig) -> dict[str, Any]:
    """The trial's values; those of a trial that goes on are the ones it had."""
    values: dict[str, Any] = {}
    for path, s in tune.space.items():
        if s.choices is not None:
            values[path] = trial.suggest_categorical(path, s.choices)
        elif s.type == "int":
            ends = int(s.low or 0), int(s.high or 0)
            values[path] = trial.suggest_int(path, *ends, step=int(s.step or 1), log=s.log)
        else:
            bounds = float(s.low or 0), float(s.high or 0)
            values[path] = trial.suggest_float(path, *bounds, step=s.step, log=s.log)
    return values


def ended(study: optuna.Study) -> list[Any]:
    """The trials that have ended, in order."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]


def best(study: optuna.Study) -> Any:
    """The best of the trials that ran to their end; None where there is none."""
    complete = load_optuna().trial.TrialState.COMPLETE
    done = study.get_trials(deepcopy=False, states=[complete])
    return study.best_trial if done else None


def shown(values: Mapping[str, Any]) -> str:
    """Values as people write them."""
    pairs = values.items()
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in pairs)
