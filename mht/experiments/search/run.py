"""The search: trial after trial, each told to the study, to MLflow and to whoever looks on.

A setting that can't be trained with, or a training that diverges, fails its trial alone. When the
first trials all fail, the search stops: then it is no trial's fault.
"""

from __future__ import annotations

import gc
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mht.checks.preflight import check
from mht.config import Config
from mht.core.component import build
from mht.core.errors import UserError
from mht.core.progress import Track, track
from mht.experiments.search import as_experiment
from mht.experiments.search.space import SAMPLING, tried_variant, with_values
from mht.experiments.search.start import Start
from mht.experiments.search.study import (
    EXPERIMENT,
    FIGURES,
    ID,
    PRUNED_AT,
    REASON,
    best,
    ended,
    load_optuna,
    next_trial,
    open_study,
    shown,
    suggest,
    trials_wanted,
)
from mht.experiments.search.trial import run_trial
from mht.experiments.search.watch import Watch
from mht.tracking import Pruned
from mht.tracking.record import one_line
from mht.tracking.session import Terminated, terminable
from mht.tracking.store import Point
from mht.tracking.trials import SearchRun, now_ms

if TYPE_CHECKING:
    import optuna

Log = Callable[[Mapping[str, float], int, int], None]  # figures, step, milliseconds

GIVE_UP = 3
FAILURES = (UserError, ArithmeticError, RuntimeError, ValueError, MemoryError)  # a bug is none
MODES = {False: "in this process", True: "by dvc"}


@dataclass(frozen=True)
class Job:
    """What is searched, and where.

    Attributes:
        name: of the search.
        folder: of its study.
        settings: plain, as the files have them, without a trial's values.
        config: the same, checked.
        start: where trials in this process start; None runs each as a DVC experiment.
        changes: what the search's files change of params.yaml, for those experiments.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    config: Config
    start: Start | None
    changes: Mapping[str, Any]


class Search:
    """A search that is going on; one process at a time works on it.

    Args:
        job: what is searched.
    """

    def __init__(self, job: Job):
        self.job, self.tune = job, job.config.tune
        self.study = open_study(job.folder, job.config, mode=MODES[job.start is None])
        tune = self.tune.model_dump(mode="json")
        params = {"tune": tune, "name": job.name, "mode": MODES[job.start is None]}
        identity = self.study.user_attrs[ID]
        self.record = SearchRun(job.config.base.experiment, job.name, identity, params)
        self.curves = job.folder / "curves"
        self.curves.mkdir(exist_ok=True)

    def run(self) -> optuna.Study:
        """Make the trials that are missing; the study.

        Raises:
            UserError: the first trials failed, each for a reason of its own or all for one.
        """
        status = "FAILED"
        try:
            with terminable():
                self._trials()
            status = "FINISHED"
        except (KeyboardInterrupt, Terminated):
            status = "KILLED"
            raise
        finally:
            self.record.close(status)
        return self.study

    def _trials(self) -> None:
        for number in (int(file.stem) for file in sorted(self.curves.glob("*.json"))):
            self._publish(number)  # what a killed search had no time to
        began, wanted = time.monotonic(), trials_wanted(self.tune)
        with track(range(wanted), f"tune {self.job.name}", wanted) as bar:
            bar.advance(min(len(ended(self.study)), wanted))
            self._show(bar)
            while len(ended(self.study)) < wanted:
                budget = self.tune.budget_s
                if budget is not None and time.monotonic() - began >= budget:
                    print(f"the budget of {budget:g} s is spent", file=sys.stderr, flush=True)
                    return
                self._one(next_trial(self.study, self.tune))
                self._give_up_early()
                bar.advance()
                self._show(bar)

    def _one(self, trial: optuna.Trial) -> None:
        """Run a trial to its end, whichever it is."""
        states = load_optuna().trial.TrialState
        values = suggest(trial, self.tune)
        run_id = self.record.begin(trial.number, values)
        curves = _Curves()
        state, value = states.FAIL, None
        try:
            value = self._train(trial, values, run_id, curves.log)
            state = states.COMPLETE
        except Pruned:
            state = states.PRUNED
        except FAILURES as error:
            if (
                PRUNED_AT in _known(self.study, trial.number).user_attrs
            ):  # by the stage, which DVC says has failed
                state = states.PRUNED
            else:
                why = str(error) if isinstance(error, UserError) else one_line(error)
                trial.set_user_attr(REASON, " ".join(why.split())[:500])
        _write(self.curves / f"{trial.number}.json", curves.points)
        self.study.tell(trial, value, state=state)
        self._publish(trial.number)
        self._say(trial.number)

    def _train(
        self,
        trial: optuna.Trial,
        values: Mapping[str, Any],
        run_id: str | None,
        log: Log,
    ) -> float:
        """The objective of a trial that runs to its end; ``log`` gets its curves."""
        if self.job.start is None:
            return self._by_dvc(trial, values, run_id, log)
        config = build(Config, with_values(self.job.settings, values))
        check(config)
        # a reward may have a state of its own, so every trial has another
        searched = any(p == k or p.startswith(f"{k}.") for p in values for k in SAMPLING)
        looked = build(Config, self.job.settings) if searched else config
        watch = Watch(trial, self.tune.metric)
        from mht.training.history import History

        gc.collect()  # the model of the trial before
        run_trial(config, looked, self.job.start, watch, History(log))
        return float(_known(self.study, trial.number).intermediate_values[config.ppo.cycles])

    def _by_dvc(
        self,
        trial: optuna.Trial,
        values: Mapping[str, Any],
        run_id: str | None,
        log: Log,
    ) -> float:
        name, variant = f"tune-{self.job.name}-{trial.number}", tried_variant(self.job.config)
        try:
            as_experiment.run_experiment(
                name,
                {**self.job.changes, **values},
                variant=variant,
                trial=f"{self.job.folder.resolve()}:{trial._trial_id}",
                parent=run_id,
                log=self.job.folder / f"trial-{trial.number}.log",
            )
            trial.set_user_attr(EXPERIMENT, name)
            value, figures = as_experiment.result(name, variant, self.tune.metric)
            trial.set_user_attr(FIGURES, figures)
            return value
        finally:
            said = _known(self.study, trial.number).intermediate_values
            for step, told in said.items():
                log({"tune/objective": told}, step, now_ms())

    def _publish(self, number: int) -> None:
        """Send an ended trial's curves to MLflow; the file stays until they are there."""
        file, trial = self.curves / f"{number}.json", _known(self.study, number)
        if not trial.state.is_finished():
            file.unlink()  # killed before it was told: the trial runs again
            return
        points = json.loads(file.read_text(encoding="utf-8"))
        at = round(trial.datetime_complete.timestamp() * 1000)
        if trial.value is not None:
            step = max(trial.intermediate_values, default=0)
            points.append(["tune/objective", trial.value, at, step])
        why = trial.user_attrs.get(REASON)
        tags = {"mht.reason": why} if why else {}
        if self.record.publish(number, points, outcome(trial), tags):
            file.unlink()
        found = best(self.study)
        if found is not None and trial.value is not None:
            self.record.best([Point("tune/best", found.value, at, number)], found.params)

    def _give_up_early(self) -> None:
        done = ended(self.study)
        if len(done) >= GIVE_UP and all(outcome(t) == "failed" for t in done):
            reasons = dict.fromkeys(t.user_attrs.get(REASON, "") for t in done)
            raise UserError("\n  ".join([f"all of the first {len(done)} trials failed:", *reasons]))

    def _say(self, number: int) -> None:
        """One line for a trial that ended."""
        trial = _known(self.study, number)
        what = {
            "complete": lambda: f"{trial.value:.4g}",
            "pruned": lambda: f"pruned after cycle {trial.user_attrs.get(PRUNED_AT)}",
            "failed": lambda: f"failed: {trial.user_attrs.get(REASON)}",
        }[outcome(trial)]()
        print(f"trial {number}: {what} ({shown(trial.params)})", flush=True)

    def _show(self, bar: Track[Any]) -> None:
        done = ended(self.study)
        found = best(self.study)
        figures = {} if found is None else {"best": found.value}
        counts = {what: sum(outcome(t) == what for t in done) for what in ("pruned", "failed")}
        bar.figures(**figures, **{k: float(n) for k, n in counts.items()})


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process works on a search at a time.

    Raises:
        UserError: another one does.
    """
    from filelock import FileLock, Timeout

    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(f"{folder}.lock", timeout=0).acquire()
    except Timeout:
        raise UserError(f"{folder.name}: another `mht tune` works on this search") from None
    try:
        yield
    finally:
        lock.lock.release()


def start_over(folder: Path) -> None:
    """Forget a search; what it has left in MLflow and DVC stays."""
    shutil.rmtree(folder, ignore_errors=True)


def outcome(trial: Any) -> str:
    """complete, pruned or failed; the study's own words."""
    return {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed")


def _known(study: optuna.Study, number: int) -> Any:
    return study.get_trials(deepcopy=False)[number]


class _Curves:
    """A trial's curves as points: key, value, milliseconds since the epoch, step."""

    def __init__(self) -> None:
        self.points: list[list[Any]] = []

    def log(self, stats: Mapping[str, float], step: int, at_ms: int) -> None:
        """Add the figures of one step."""
        self.points += [[key, float(value), at_ms, step] for key, value in stats.items()]


def _write(file: Path, points: list[list[Any]]) -> None:
    """The file is whole or not there."""
    half = file.with_suffix(".half")
    half.write_text(json.dumps(points), encoding="utf-8")
    half.replace(file)
