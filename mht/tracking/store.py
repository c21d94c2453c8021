"""The MLflow store: where it is, how it is opened, and every call that is made to it.

The only module that imports mlflow. Nothing here is soft: a failure reaches the caller.
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mht.core.errors import UserError
from mht.core.project import repo_root
from mht.tracking.names import clean, finite
from mht.tracking.secrets import one_line, redacted
from mht.tracking.session import is_alive

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_TIMEOUT_S = 60.0
BATCH = 100  # parameters or tags in one call; ten times as many metrics
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a server that is down must not hold up training
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # at ERROR it shows tracebacks, with parameters in them
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


class Point(NamedTuple):
    """One value of a curve; ``timestamp_ms`` since the epoch."""

    key: str
    value: float
    timestamp_ms: int
    step: int


@dataclass(frozen=True)
class Recorded:
    """A run that is in the store."""

    id: str
    name: str
    status: str
    tags: Mapping[str, str]


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or mlflow.db in the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{repo_root() / 'mlflow.db'}"


KIND = "mlflow.experimentKind"  # what MLflow's pages show first
ABOUT = {
    KIND: "custom_model_development",  # runs and their curves, not traces of an application
    "mlflow.note.content": "A row for each `dvc repro` or experiment, its stages below it with "
    "curves, settings and artifacts. `mht compare` has intervals and verdicts.",
}


def open_store(experiment: str) -> Store:
    """The store with this experiment in it, both made if they are not there.

    Raises:
        Exception: whatever MLflow, its database driver or the file system raise.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.pop("MLFLOW_RUN_ID", None)  # MLflow would take it for every run's own
    uri = tracking_uri()
    database = _database(uri)
    with _quiet_start(), _first_open(database) if database else contextlib.nullcontext():
        import mlflow

        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient()
        return Store(client, _experiment_id(client, experiment, database), database)


@contextlib.contextmanager
def reachable() -> Iterator[None]:
    """For a command that is about the store: what goes wrong there is one line.

    Raises:
        UserError: the store can't be opened or does not answer.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
        place = redacted(tracking_uri())
        raise UserError(
            f"the tracking store {place} can't be used ({one_line(error)}): see to it, or set "
            "MLFLOW_TRACKING_URI to another one"
        ) from None


def store_exists() -> bool:
    """False if opening the store would make a new database."""
    database = _database(tracking_uri())
    return database is None or database.exists()


def _database(uri: str) -> Path | None:
    """The file of an SQLite store, None for any other."""
    place = uri.removeprefix("sqlite:///").partition("?")[0]
    return None if place == uri or place.startswith("file:") else Path(place).absolute()


@contextlib.contextmanager
def _first_open(database: Path) -> Iterator[None]:
    """Only one process at a time, as MLflow's migration of a new database is not safe for two.

    The plain connection fails at once where MLflow would retry for minutes.
    """
    from filelock import FileLock

    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock", timeout=LOCK_TIMEOUT_S):
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        yield


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Without the migration's hundred log lines, and without tracebacks later."""
    loggers = [logging.getLogger(name) for name in ("alembic", "mlflow", "urllib3", "filelock")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(max(level, logging.CRITICAL))


def _experiment_id(client: MlflowClient, name: str, database: Path | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        # never MLflow's default experiment: its artifacts lie where the database was made
        place = (database.parent / "mlartifacts").as_uri() if database else None
        return str(client.create_experiment(name, artifact_location=place, tags=ABOUT))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    if KIND not in found.tags:  # it was made without
        client.set_experiment_tag(found.experiment_id, KIND, ABOUT[KIND])
    return str(found.experiment_id)


class Store:
    """One experiment in the store; every method is one or a few MLflow calls."""

    def __init__(self, client: MlflowClient, experiment_id: str, database: Path | None = None):
        self.client = client
        self.experiment_id = experiment_id
        self._database = database

    def create_run(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        """Begin a run and return its id."""
        own = {"mlflow.user": getpass.getuser(), "mlflow.source.type": "LOCAL"}
        if parent:
            own["mlflow.parentRunId"] = parent
        tags = {clean(key): value for key, value in {**own, **tags}.items() if value}
        return str(self.client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id)

    def log(
        self,
        run_id: str,
        *,
        points: Sequence[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        model_id: str | None = None,
    ) -> None:
        """Add metrics, parameters and tags to a run, in as few calls as MLflow allows."""
        from mlflow.entities import Metric, Param, RunTag

        self._check()
        metrics = [Metric(*point, model_id=model_id, run_id=run_id) for point in points]
        settings = [Param(key, value) for key, value in (params or {}).items()]
        labels = [RunTag(clean(key), value) for key, value in (tags or {}).items()]
        for start in range(0, len(metrics), 9 * BATCH):  # a call holds 1000 things in all
            self.client.log_batch(run_id, metrics=metrics[start : start + 9 * BATCH])
        for start in range(0, len(settings), BATCH):
            self.client.log_batch(run_id, params=settings[start : start + BATCH])
        for start in range(0, len(labels), BATCH):
            self.client.log_batch(run_id, tags=labels[start : start + BATCH])

    def figures(
        self, run_id: str, metrics: Mapping[str, float], model_id: str | None = None
    ) -> None:
        """Add figures that have no step, each once: a changed one is the next step of its key."""
        known = self.client.get_run(run_id).data.metrics
        now = round(time.time() * 1000)
        points = []
        for key, value in finite(metrics):
            if known.get(key) != value:
                before = self.client.get_metric_history(run_id, key) if key in known else []
                step = 1 + max((point.step for point in before), default=-1)
                points.append(Point(key, value, now, step))
        self.log(run_id, points=points, model_id=model_id)

    def set_status(self, run_id: str, status: str) -> None:
        """FINISHED, FAILED or KILLED end a run; RUNNING opens it again."""
        self._check()
        if status == "RUNNING":
            self.client.update_run(run_id, status=status)
        else:
            self.client.set_terminated(run_id, status)

    def find(self, tags: Mapping[str, str], status: str | None = None) -> Recorded | None:
        """The latest run with all these tags."""
        wanted = [f"tags.`{clean(key)}` = '{value}'" for key, value in tags.items()]
        if status:
            wanted.append(f"attributes.status = '{status}'")
        return next(iter(self._search(" and ".join(wanted), limit=1)), None)

    def find_outs(self, outs: Mapping[str, str]) -> Recorded | None:
        """The latest finished run that wrote exactly this content: path to DVC's md5."""
        if not outs:
            return None
        return self.find({f"dvc.out.{path}": md5 for path, md5 in outs.items()}, "FINISHED")

    def get(self, run_id: str) -> Recorded:
        """The run with this id."""
        return _recorded(self.client.get_run(run_id))

    def artifact(self, run_id: str, path: str) -> None:
        """Copy a file or folder to the run, under the same path."""
        place = Path(path)
        folder = place if place.is_dir() else place.parent
        inside = None if folder == Path() or folder.is_absolute() else folder.as_posix()
        if place.is_dir():
            self.client.log_artifacts(run_id, path, artifact_path=inside)
        else:
            self.client.log_artifact(run_id, path, artifact_path=inside)

    def model(self, run_id: str, path: str, params: Mapping[str, str], md5: str) -> str:
        """Show a model folder as the run's model, without a copy of its bytes; DVC has those."""
        import mlflow
        from mlflow.entities import LoggedModelOutput

        model = mlflow.create_external_model(
            name=clean(path).replace("/", "-").replace(".", "-").replace(":", "-"),
            source_run_id=run_id,
            tags={"mht.path": path, "dvc.md5": md5},
            params=dict(params),
            experiment_id=self.experiment_id,
        )
        self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        return str(model.model_id)

    def children(self, run_id: str) -> list[Recorded]:
        """The runs below a run."""
        return self._search(f"tags.`mlflow.parentRunId` = '{run_id}'", limit=1000)

    def _check(self) -> None:
        """An open connection writes on into a deleted database, where nobody finds it."""
        if self._database and not self._database.exists():
            raise FileNotFoundError(errno.ENOENT, "the database is gone", str(self._database))

    def reap(self) -> None:
        """End the runs whose process is gone from this machine without a word."""
        for run in self._search("attributes.status = 'RUNNING'", limit=1000):
            process = run.tags.get("mht.process")
            # it may have ended well since the search; once its process is gone nothing changes
            if process and not is_alive(process) and self.get(run.id).status == "RUNNING":
                self.log(run.id, tags={"mht.reaped": "true"})
                self.set_status(run.id, "KILLED")

    def _search(self, condition: str, limit: int) -> list[Recorded]:
        found = self.client.search_runs(
            [self.experiment_id],
            condition,
            max_results=limit,
            order_by=["attributes.start_time DESC"],
        )
        return [_recorded(run) for run in found]


def _recorded(run: Any) -> Recorded:
    return Recorded(run.info.run_id, run.info.run_name, run.info.status, dict(run.data.tags))
