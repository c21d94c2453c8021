"""What a stage leaves in the store: its own run, and its share of the pipeline run above it.

The pipeline run is the one row per `dvc repro` or experiment. The first stage that really runs
makes it, later ones find it by the session's tag, open it again and close it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from mht.tracking import names
from mht.tracking.content.inputs import StageInputs
from mht.tracking.content.pipeline import Pipeline, Stage, tree_md5
from mht.tracking.content.scope import remaining
from mht.tracking.secrets import one_line
from mht.tracking.session import dvc_process, process_id
from mht.tracking.store import Point, Store, open_store

PARENT = "MHT_PARENT_RUN"  # the run of the search's trial that a pipeline run belongs to
WORST_FIRST = ("KILLED", "FAILED", "FINISHED")


@dataclass
class Record:
    """A stage's run in the store and the pipeline run above it.

    Attributes:
        store: where both are.
        run_id: the stage's run.
        stage: what dvc.yaml says of it.
        pipeline: the pipeline as it was when the stage began.
        params: the stage's flat parameters.
        parent_id: the pipeline run; None outside DVC.
        dvc: the command line of the `dvc` above; empty outside DVC.
        makers: upstream stage to the id of the run that made what this one reads.
        written: path to md5 of its outs, once they are published.
    """

    store: Store
    run_id: str
    stage: Stage
    pipeline: Pipeline
    params: Mapping[str, str]
    parent_id: str | None = None
    dvc: Sequence[str] = ()
    makers: Mapping[str, str] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)

    def log(self, points: list[Point]) -> None:
        """Add points to the stage's curves."""
        self.store.log(self.run_id, points=points)

    def publish(
        self, artifacts: list[str], models: list[str], figures: Mapping[str, float]
    ) -> None:
        """After success: what the stage wrote, by content, with its artifacts and models.

        Args:
            artifacts: files and folders to copy.
            models: model folders.
            figures: the stage's last figures; its metrics files may hold more.
        """
        for path in artifacts:
            self.store.artifact(self.run_id, path)
        md5s = {path: tree_md5(path) for path in self.stage.outs if Path(path).exists()}
        results = self._results()
        final = {f"final/{name}": value for name, value in {**figures, **results}.items()}
        model_id = None
        for path in models:
            md5 = md5s.get(path) or tree_md5(path)
            model_id = self.store.model(self.run_id, path, self.params, md5)
        self.store.figures(self.run_id, final, model_id)
        outs = {f"dvc.out.{path}": md5 for path, md5 in md5s.items()}
        self.store.log(self.run_id, tags=outs)
        self.written = md5s
        if self.parent_id:
            above = {f"{names.clean(self.stage.name)}/{k}": v for k, v in results.items()}
            self._publish_above(self.parent_id, above, md5s)

    def close(self, status: str, error: BaseException | None = None) -> None:
        """End the run, and the pipeline run if no stage remains or one of them failed."""
        if error is not None:
            self.store.log(self.run_id, tags={"mht.error": one_line(error)})
        self.store.set_status(self.run_id, status)
        if self.parent_id:
            below = self.store.children(self.parent_id)
            ends = [run.status for run in below if run.status in WORST_FIRST]
            worst = min([status, *ends], key=WORST_FIRST.index)
            ran = {run.tags.get("mht.stage", "") for run in below}
            if worst != "FINISHED" or not remaining(
                self.pipeline, self.dvc, self.stage.name, self.written, ran
            ):
                self.store.set_status(self.parent_id, worst)

    def _results(self) -> dict[str, float]:
        """The stage's metrics files as flat metrics; a broken one is DVC's to complain about."""
        found: dict[str, float] = {}
        for path in self.stage.metrics:
            if path.endswith(".json") and Path(path).exists():
                data = json.loads(Path(path).read_text(encoding="utf-8"))
                found |= names.flat_metrics(data)
        return found

    def _publish_above(
        self, parent_id: str, results: Mapping[str, float], md5s: Mapping[str, str]
    ) -> None:
        own = self.stage.name
        others = {**self.pipeline.upstream(own), **self.pipeline.current(own, md5s)}
        makers = find_makers(self.store, self.pipeline, list(others.keys() - self.makers.keys()))
        lineage = {**self.makers, **makers, own: self.run_id}
        tags = {f"mht.lineage.{stage}": run_id for stage, run_id in lineage.items()}
        tags["mht.state"] = state_key(self.pipeline, {own: md5s})
        before = results_of(self.pipeline, others)
        self.store.figures(parent_id, {**before, **results})
        self.store.log(parent_id, tags=tags)


def begin(inputs: StageInputs, experiment: str) -> Record:
    """Open the store and begin this stage's run, and the pipeline run if it is the first.

    A run that was killed and has left its state goes on as the same run.

    Args:
        inputs: what the stage is about to do.
        experiment: MLflow's experiment.

    Raises:
        Exception: whatever the store raises.
    """
    store = open_store(experiment)
    store.reap()
    with contextlib.ExitStack() as undo:
        record = _begin(store, inputs, undo)
        undo.pop_all()
    return record


def _closes(store: Store, run_id: str) -> Callable[..., None]:
    """What ends a run that was opened by a stage that then could not begin."""

    def close(kind: type[BaseException] | None, *_: object) -> None:
        status = "FAILED" if kind and issubclass(kind, Exception) else "KILLED"
        with contextlib.suppress(Exception):  # the store itself may be what failed
            store.set_status(run_id, status)

    return close


def _begin(store: Store, inputs: StageInputs, undo: contextlib.ExitStack) -> Record:
    stage, pipeline = inputs.stage, inputs.pipeline
    dvc = dvc_process()
    parent_id = _pipeline_run(store, inputs.everything, dvc, undo) if dvc else None
    makers = find_makers(store, pipeline, list(pipeline.upstream(stage.name)))
    tags = {"mht.kind": "stage", "mht.stage": stage.name, "mht.process": process_id()}
    tags |= {"mht.fingerprint": inputs.fingerprint()}
    tags |= {"mlflow.source.name": f"dvc repro {stage.name}", **_origin()}
    tags |= {f"dvc.dep.{path}": md5 for path, md5 in inputs.read.items()}
    tags |= {f"mht.upstream.{upstream}": run_id for upstream, run_id in makers.items()}
    known = store.find({"mht.fingerprint": tags["mht.fingerprint"]}) if inputs.goes_on() else None
    if known and known.status != "FINISHED":
        run_id = known.id
        undo.push(_closes(store, run_id))
        store.set_status(run_id, "RUNNING")
        above = {"mlflow.parentRunId": parent_id} if parent_id else {}
        store.log(run_id, tags={k: v for k, v in {**tags, **above}.items() if v})
    else:
        run_id = store.create_run(stage.name, tags, parent_id)
        undo.push(_closes(store, run_id))
        store.log(run_id, params=inputs.params)
    words = dvc.cmdline() if dvc else []
    return Record(store, run_id, stage, pipeline, inputs.params, parent_id, words, makers)


def _pipeline_run(
    store: Store, params: Mapping[str, str], dvc: psutil.Process, undo: contextlib.ExitStack
) -> str:
    """The id of this session's pipeline run, open."""
    name = os.environ.get("DVC_EXP_NAME", "")
    session = f"{process_id(dvc)}:{name}"
    known = store.find({"mht.session": session, "mht.kind": "pipeline"})
    if known:
        undo.push(_closes(store, known.id))
        store.set_status(known.id, "RUNNING")
        return known.id
    tags = {"mht.kind": "pipeline", "mht.session": session, "mht.process": process_id(dvc)}
    tags |= {"mlflow.source.name": "dvc exp run" if name else "dvc repro", **_origin()}
    above = os.environ.get(PARENT)
    run_id = store.create_run(name or time.strftime("repro-%m%d-%H%M%S"), tags, above)
    undo.push(_closes(store, run_id))
    store.log(run_id, params=params)
    return run_id


def find_makers(store: Store, pipeline: Pipeline, stages: list[str]) -> dict[str, str]:
    """For each stage the run that made the outs that dvc.lock has, where this store knows it."""
    found = {name: store.find_outs(pipeline.stages[name].recorded) for name in stages}
    return {name: run.id for name, run in found.items() if run}


def results_of(pipeline: Pipeline, stages: Mapping[str, Stage]) -> dict[str, float]:
    """The metrics files of these stages as flat metrics, each under its stage's name."""
    found: dict[str, float] = {}
    for name, stage in stages.items():
        for path in stage.metrics:
            found |= names.flat_metrics(pipeline.results.get(path, {}), name)
    return found


def state_key(pipeline: Pipeline, written: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """A name for the content of all outs; ``written`` is newer than dvc.lock."""
    recorded = {name: stage.recorded for name, stage in pipeline.stages.items()}
    content = json.dumps({**recorded, **(written or {})}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def to_points(metrics: Mapping[str, float], step: int = 0) -> list[Point]:
    """The metrics as points of now."""
    now = round(time.time() * 1000)
    return [Point(key, value, now, step) for key, value in names.finite(metrics)]


def _origin() -> dict[str, str]:
    """Where the code and the experiment come from; DVC's names are empty in a plain repro."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "mlflow.source.git.commit": git.stdout.strip() if git.returncode == 0 else "",
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
    }
