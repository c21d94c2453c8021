"""`mht status`: what `dvc repro` would run, and why."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from mht.pipeline.status import Verdict
    from mht.tracking.content.pipeline import Pipeline

WIDTH = 80


def status() -> None:
    """List the stages that `dvc repro` would run and why, and the MLflow runs of the others."""
    from mht.cli.project.pipelines import pipeline_at
    from mht.pipeline.announce import durations, spoken
    from mht.pipeline.status import CODE
    from mht.pipeline.status import status as verdicts
    from mht.projects.code import write_code

    pipeline = pipeline_at(None)
    if CODE in pipeline.stages:
        write_code()  # as its stage would, first of all
    found = verdicts(pipeline)
    runs = _runs(pipeline)
    width = max((len(verdict.stage) for verdict in found), default=0)
    for verdict in found:
        for line in _lines(verdict, width, runs):
            typer.echo(line)
    rerun = [verdict.stage for verdict in found if verdict.runs]
    took = durations()
    known = all(stage in took for stage in rerun)
    about = f", about {spoken(sum(took[s] for s in rerun))} as last time" if rerun and known else ""
    typer.echo(f"\n{len(rerun)} of {len(found)} stages would run{about}.")


def _lines(verdict: Verdict, width: int, runs: Mapping[str, str]) -> Iterator[str]:
    """A stage with its reasons, the name in a column of its own."""
    after = [f"after {' and '.join(verdict.upstream)}"] if verdict.upstream else []
    made = f"up to date, run {runs[verdict.stage]}" if verdict.stage in runs else "up to date"
    text = "; ".join([*verdict.reasons, *after]) or made
    lines = textwrap.wrap(text, WIDTH - width - 2, break_on_hyphens=False) or [""]
    names = [verdict.stage, *[""] * (len(lines) - 1)]
    yield from (f"{name:{width}}  {line}" for name, line in zip(names, lines, strict=True))


def _runs(pipeline: Pipeline) -> dict[str, str]:
    """Stage to the first digits of the run that made its outs, where the store knows it."""
    from mht.cli.project.pipelines import known_store
    from mht.tracking.states import lineage
    from mht.tracking.store import reachable

    with reachable():
        made = lineage(known_store(pipeline), pipeline)
    return {one.stage: one.run.id[:8] for one in made if one.run}
