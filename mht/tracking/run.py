"""What a stage says to tracking: curves, artifacts, models. It never costs a trained model.

Metrics are gathered and sent about every 5 seconds, everything else after the stage has written
its outputs. What the store refuses is reported once, on stderr, and the stage goes on.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mht.tracking import names
from mht.tracking.content.inputs import StageInputs, read_inputs
from mht.tracking.record import Record, begin
from mht.tracking.secrets import one_line
from mht.tracking.seed_record import SeedRecord, begin_seed
from mht.tracking.session import Pruned, Terminated, terminable
from mht.tracking.store import Point

FLUSH_S = 5.0
LONGEST_WAIT_S = 300.0


class Soft:
    """Turns an error of the tracking store into one warning, the first time."""

    def __init__(self) -> None:
        self.warned = False

    @contextlib.contextmanager
    def __call__(self, doing: str) -> Iterator[None]:
        """Let the body fail."""
        try:
            yield
        except Exception as error:  # MLflow, its database driver and the disk share no base class
            if not self.warned:
                self.warned = True
                print(
                    f"warning: tracking could not {doing} ({one_line(error)}). Training goes on "
                    "and writes all its outputs; the MLflow page will lack this run or parts of it",
                    file=sys.stderr,
                    flush=True,
                )


class Run:
    """The MLflow run of one stage.

    Attributes:
        id: MLflow's run id; None if nothing is tracked.
        scratch: where the stage may keep its state in case it is killed. With state there, the next
            run of the same stage on the same inputs goes on as this run.
        deps: paths whose change makes DVC run the stage again; none without a stage of DVC's.
        inputs: what the stage reads, by content; None where DVC does not list it.
        watch: in a trial of a search, gets the cycle, the number of cycles and the figures of each
            validation; may raise `Pruned`.
    """

    scratch: Path | None = None
    deps: Sequence[str] = ()
    inputs: StageInputs | None = None
    watch: Callable[[int, int, Mapping[str, float]], None] | None = None

    def __init__(self, record: Record | SeedRecord, soft: Soft):
        self.id: str | None = record.run_id
        self._record = record
        self._soft = soft
        self._points: list[Point] = []
        self._figures: dict[str, float] = {}
        self._artifacts: list[str] = []
        self._models: list[str] = []
        self._wait_s = FLUSH_S
        self._flushed = time.monotonic()

    def log(self, metrics: Mapping[str, float], step: int, at_ms: int | None = None) -> None:
        """Add a point to each metric's curve; infinity and NaN are left out.

        Args:
            metrics: name to value.
            step: where on the curve.
            at_ms: milliseconds since the epoch; None is now. A point that is sent again with the
                same time is the same point.
        """
        at_ms = round(time.time() * 1000) if at_ms is None else at_ms
        self._points += [Point(key, value, at_ms, step) for key, value in names.finite(metrics)]
        if time.monotonic() - self._flushed >= self._wait_s:
            self.flush()

    def summary(self, metrics: Mapping[str, float]) -> None:
        """Keep final figures, which have no step: ``final/<name>`` once the stage has succeeded."""
        self._figures |= metrics

    def artifact(self, path: str) -> None:
        """Keep a copy of this file or folder with the run, once the stage has succeeded."""
        self._artifacts.append(path)

    def model(self, path: str) -> None:
        """Show this model folder as the run's model, once the stage has succeeded."""
        self._models.append(path)

    @contextlib.contextmanager
    def of_seed(self, seed: int) -> Iterator[Run]:
        """The run of one training seed: this one for the first, another below it for each other."""
        if self.inputs is None or seed == self.inputs.seeds[0]:
            yield self
            return
        run = self._below(self.inputs, seed)
        run.scratch, run.deps = self.inputs.scratch(seed), self.deps
        with _ended(run):
            yield run

    def _below(self, inputs: StageInputs, seed: int) -> Run:
        with self._soft("begin a seed's run"):
            if isinstance(self._record, Record):
                record = begin_seed(self._record.store, inputs, seed, self._record.run_id)
                return Run(record, self._soft)
        return NullRun()

    def flush(self) -> bool:
        """Send what was gathered; after a failure it is kept and tried again, ever later.

        Returns:
            Whether the store took it.
        """
        sent = len(self._points)
        with self._soft("log metrics"):
            if sent:
                self._record.log(self._points)
            self._points, sent, self._wait_s = [], 0, FLUSH_S
        if sent:
            self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        self._flushed = time.monotonic()
        return not sent

    def close(self, status: str, error: BaseException | None = None) -> None:
        """Send everything and end the run as FINISHED, FAILED or KILLED."""
        if self.flush() and status == "FINISHED":  # each try of a locked store costs its time
            with self._soft("log the stage's outputs"):
                self._record.publish(self._artifacts, self._models, self._figures)
        with self._soft("close the run"):
            self._record.close(status, error)


class NullRun(Run):
    """A run that records nothing: for use as a library, or when the store can't be opened."""

    def __init__(self) -> None:
        self.id = None

    def _below(self, inputs: StageInputs, seed: int) -> Run:
        return NullRun()

    def log(self, metrics: Mapping[str, float], step: int, at_ms: int | None = None) -> None:
        """Do nothing."""

    def summary(self, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def artifact(self, path: str) -> None:
        """Do nothing."""

    def model(self, path: str) -> None:
        """Do nothing."""

    def flush(self) -> bool:
        """Do nothing."""
        return True

    def close(self, status: str, error: BaseException | None = None) -> None:
        """Do nothing."""


@contextlib.contextmanager
def open_run(name: str, *, params: Mapping[str, Any], experiment: str) -> Iterator[Run]:
    """The run of this stage, for the time it takes.

    It ends FINISHED, FAILED after an exception, or KILLED after ctrl-C, SIGTERM or a
    search's verdict. A store that
    can't be opened gives a `NullRun` and a warning.

    Args:
        name: the stage's, where DVC does not tell.
        params: all settings, nested.
        experiment: MLflow's experiment.
    """
    soft = Soft()
    with terminable():
        run: Run = NullRun()
        inputs: StageInputs | None = None
        with soft("read the pipeline"):
            inputs = read_inputs(name, params)
            with soft("open the store"):
                run = Run(begin(inputs, experiment), soft)
        if inputs:
            run.inputs, run.scratch, run.deps = inputs, inputs.scratch(), inputs.stage.deps
        with _ended(run):
            yield run


@contextlib.contextmanager
def _ended(run: Run) -> Iterator[None]:
    """Close the run as the block ends."""
    try:
        yield
    except (KeyboardInterrupt, Terminated, Pruned):
        run.close("KILLED")
        raise
    except BaseException as error:
        run.close("FAILED", error)
        raise
    run.close("FINISHED")


@contextlib.contextmanager
def silent_run() -> Iterator[Run]:
    """For the other processes of a stage whose main one has the run."""
    with terminable():
        yield NullRun()
