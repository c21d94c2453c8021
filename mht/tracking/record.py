"""What a stage leaves in the store: its own run, and its share of the pipeline run above it.

The pipeline run is the one row per `dvc repro` or experiment. The first stage that really runs
makes it, later ones find it by the session's tag, open it again and close it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mht.tracking import names
from mht.tracking.pipeline import Pipeline, Stage, read_pipeline, tree_md5
from mht.tracking.scratch import fingerprint, scratch_folder
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
        parent_before: the pipeline run's status when the stage began.
        makers: upstream stage to the id of the run that made what this one reads.
    """

    store: Store
    run_id: str
    stage: Stage
    pipeline: Pipeline
    params: Mapping[str, str]
    parent_id: str | None = None
    parent_before: str = "FINISHED"
    makers: Mapping[str, str] = field(default_factory=dict)

    def log(self, points: list[Point]) -> None:
        """Add points to the stage's curves."""
        self.store.log(self.run_id, points=points)

    def publish(self, artifacts: list[str], models: list[str]) -> None:
        """After success: what the stage wrote, by content, with its artifacts and models."""
        for path in artifacts:
            self.store.artifact(self.run_id, path)
        md5s = {path: tree_md5(path) for path in self.stage.outs if Path(path).exists()}
        results = self._results()
        points = to_points({f"final/{name}": value for name, value in results.items()})
        for path in models:
            md5 = md5s.get(path) or tree_md5(path)
            model_id = self.store.model(self.run_id, path, self.params, md5)
            self.store.log(self.run_id, points=points, model_id=model_id)
        outs = {f"dvc.out.{path}": md5 for path, md5 in md5s.items()}
        self.store.log(self.run_id, points=[] if models else points, tags=outs)
        if self.parent_id:
            above = {f"{names.clean(self.stage.name)}/{k}": v for k, v in results.items()}
            self._publish_above(self.parent_id, above, md5s)

    def close(self, status: str, error: BaseException | None = None) -> None:
        """End the run and, with the worst status of its stages, the pipeline run."""
        if error is not None:
            self.store.log(self.run_id, tags={"mht.error": one_line(error)})
        self.store.set_status(self.run_id, status)
        if self.parent_id:
            worst = min(status, self.parent_before, key=WORST_FIRST.index)
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
        self.store.log(parent_id, points=to_points({**before, **results}), tags=tags)


@dataclass(frozen=True)
class Situation:
    """What a stage is about to do.

    Attributes:
        stage: what dvc.yaml says of it.
        pipeline: as it is when the stage begins.
        everything: all flat parameters.
        params: those that the stage reads.
        read: path to md5 of its deps.
        fingerprint: of all that decides its outcome.
        scratch: the folder for what a killed run leaves for the next one; None where dvc.yaml does
            not say what the stage reads: an old state could not be told from a fitting one.
    """

    stage: Stage
    pipeline: Pipeline
    everything: Mapping[str, str]
    params: Mapping[str, str]
    read: Mapping[str, str]
    fingerprint: str
    scratch: Path | None

    @property
    def goes_on(self) -> bool:
        """Whether a killed run of exactly this has left something."""
        return self.scratch is not None and self.scratch.is_dir()


def look_around(name: str, params: Mapping[str, Any]) -> Situation:
    """What this process, a stage, is about to do.

    Args:
        name: of the stage, if neither DVC nor dvc.yaml know it.
        params: all settings, nested.
    """
    pipeline = _pipeline_here()
    stage = _this_stage(pipeline, name)
    flat = names.flat_params(params)
    own = names.chosen(flat, stage.params) if stage.params else flat
    read = {path: tree_md5(path) for path in stage.deps if Path(path).exists()}
    identity = fingerprint(stage.cmd, read, own)
    scratch = scratch_folder(stage.name, identity) if read else None
    return Situation(stage, pipeline, flat, own, read, identity, scratch)


def begin(here: Situation, experiment: str) -> Record:
    """Open the store and begin this stage's run, and the pipeline run if it is the first.

    A run that was killed and has left its state goes on as the same run.

    Args:
        here: what the stage is about to do.
        experiment: MLflow's experiment.

    Raises:
        Exception: whatever the store raises.
    """
    stage, pipeline = here.stage, here.pipeline
    store = open_store(experiment)
    store.reap()
    parent_id, before = _pipeline_run(store, here.everything)
    makers = find_makers(store, pipeline, list(pipeline.upstream(stage.name)))
    tags = {"mht.kind": "stage", "mht.stage": stage.name, "mht.process": process_id()}
    tags |= {"mht.fingerprint": here.fingerprint}
    tags |= {"mlflow.source.name": f"dvc repro {stage.name}", **_origin()}
    tags |= {f"dvc.dep.{path}": md5 for path, md5 in here.read.items()}
    tags |= {f"mht.upstream.{upstream}": run_id for upstream, run_id in makers.items()}
    known = store.find({"mht.fingerprint": here.fingerprint}) if here.goes_on else None
    if known and known.status != "FINISHED":
        run_id = known.id
        store.set_status(run_id, "RUNNING")
        above = {"mlflow.parentRunId": parent_id} if parent_id else {}
        store.log(run_id, tags={k: v for k, v in {**tags, **above}.items() if v})
    else:
        run_id = store.create_run(stage.name, tags, parent_id)
        store.log(run_id, params=here.params)
    return Record(store, run_id, stage, pipeline, here.params, parent_id, before, makers)


def _pipeline_here() -> Pipeline:
    from dvc.exceptions import DvcException

    try:
        return read_pipeline()
    except DvcException:  # no DVC here, or the user is editing dvc.yaml: DVC itself will say so
        return Pipeline({}, {}, {})


def _this_stage(pipeline: Pipeline, name: str) -> Stage:
    address = os.environ.get("DVC_STAGE")
    if address:
        return pipeline.stages.get(address) or Stage(address, cmd="")
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    command = " ".join(["python -m", spec.name, *sys.argv[1:]]) if spec else ""
    return pipeline.stage_of_command(command) or Stage(name, cmd=command)


def _pipeline_run(store: Store, params: Mapping[str, str]) -> tuple[str | None, str]:
    """The id of this session's pipeline run, open, and the status it had."""
    dvc = dvc_process()
    if dvc is None:
        return None, "FINISHED"
    name = os.environ.get("DVC_EXP_NAME", "")
    session = f"{process_id(dvc)}:{name}"
    known = store.find({"mht.session": session, "mht.kind": "pipeline"})
    if known:
        store.set_status(known.id, "RUNNING")
        # still open: the stage before this one had no time to close it
        return known.id, "KILLED" if known.status == "RUNNING" else known.status
    tags = {"mht.kind": "pipeline", "mht.session": session, "mht.process": process_id(dvc)}
    tags |= {"mlflow.source.name": "dvc exp run" if name else "dvc repro", **_origin()}
    above = os.environ.get(PARENT)
    run_id = store.create_run(name or time.strftime("repro-%m%d-%H%M%S"), tags, above)
    store.log(run_id, params=params)
    return run_id, "FINISHED"


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


def one_line(error: BaseException) -> str:
    """The error's kind and the first line of its message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}".removesuffix(": ")


def _origin() -> dict[str, str]:
    """Where the code and the experiment come from; DVC's names are empty in a plain repro."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "mlflow.source.git.commit": git.stdout.strip() if git.returncode == 0 else "",
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
    }
