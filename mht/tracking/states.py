"""Pipeline states looked up in the store: which run made what, and rows for states from cache.

A state is what one dvc.lock describes: the workspace's, a commit's or an experiment's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mht.tracking import names
from mht.tracking.content.pipeline import Pipeline, experiments, read_pipeline
from mht.tracking.record import find_makers, results_of, state_key
from mht.tracking.store import Recorded, Store

UNTRACKED = ("code", "variants")  # stages that pass on what every run has


@dataclass(frozen=True)
class Made:
    """Where the outs of one stage come from.

    Attributes:
        stage: its name.
        ran: whether dvc.lock has its outs at all.
        run: the MLflow run that made them, if this machine's store knows it.
        pipeline_run: the run above that one.
    """

    stage: str
    ran: bool
    run: Recorded | None = None
    pipeline_run: Recorded | None = None


@dataclass(frozen=True)
class Synced:
    """One pipeline state and its row in MLflow.

    Attributes:
        name: "workspace", a commit or an experiment.
        run_id: of the row; None if some stage never ran, so that there is no state to show.
        added: whether `sync` made it just now.
    """

    name: str
    run_id: str | None
    added: bool


def lineage(store: Store | None, pipeline: Pipeline) -> list[Made]:
    """For each tracked stage the run that made its outs; no store knows no runs."""
    found = []
    for stage in pipeline.stages.values():
        if stage.name in UNTRACKED:
            continue
        run = store.find_outs(stage.recorded) if store else None
        parent = run.tags.get("mlflow.parentRunId") if run else None
        above = store.get(parent) if store and parent else None
        found.append(Made(stage.name, bool(stage.recorded), run, above))
    return found


def sync(store: Store, effective: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> list[Synced]:
    """Give every state of HEAD, the experiments and the workspace a row, where it has none yet.

    Args:
        store: to add the rows to.
        effective: params.yaml's data to all settings, defaults included.

    Raises:
        dvc.exceptions.DvcException: no DVC repository here, or a broken dvc.yaml.
    """
    return [_sync_one(store, name, rev, effective) for name, rev in _revisions().items()]


def _revisions() -> dict[str, str | None]:
    from dvc.repo import Repo

    with Repo() as repo:
        head = None if repo.scm.no_commits else str(repo.scm.get_rev())
    named: dict[str, str | None] = {f"commit {head[:7]}": head} if head else {}
    return {**named, **experiments(), "workspace": None}


def _sync_one(
    store: Store,
    name: str,
    rev: str | None,
    effective: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> Synced:
    pipeline = read_pipeline(rev)
    if not pipeline.stages or not all(s.recorded or not s.outs for s in pipeline.stages.values()):
        return Synced(name, None, False)
    key = state_key(pipeline)
    known = store.find({"mht.state": key, "mht.kind": "pipeline"}, "FINISHED")
    if known:
        return Synced(name, known.id, False)
    run_id = _row(store, name, rev)
    makers = find_makers(store, pipeline, list(pipeline.stages))
    store.figures(run_id, results_of(pipeline, pipeline.stages))
    store.log(
        run_id,
        params=names.flat_params(effective(pipeline.params)),
        tags={f"mht.lineage.{stage}": maker for stage, maker in makers.items()},
    )
    store.log(run_id, tags={"mht.state": key})  # last: a row cut short is made again
    store.set_status(run_id, "FINISHED")
    return Synced(name, run_id, True)


def _row(store: Store, name: str, rev: str | None) -> str:
    """An experiment's own row if its first stages made one and the cache gave the rest."""
    begun = store.find({"dvc.exp_name": name, "mht.kind": "pipeline"}, "FINISHED")
    if begun:
        return begun.id
    tags = {"mht.kind": "pipeline", "mht.synced": "true", "mlflow.source.name": "mht sync"}
    return store.create_run(name, {**tags, "mlflow.source.git.commit": rev or ""})
