"""`mht report`: the page of a benchmark over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(help="that `mht seeds` wrote")],
    experiment: Annotated[
        Path | None, typer.Option(help="whose benchmark.guard judges; its defaults if left out")
    ] = None,
    params: Annotated[Path, typer.Option(help="what the experiment is laid over")] = Path(
        "params.yaml"
    ),
    baseline: Annotated[
        str | None, typer.Option(help="the variant that the guard compares with")
    ] = None,
) -> None:
    """Write report.html into a folder of `mht seeds`: tables, curves, samples and the guard."""
    from mht.config import GuardConfig
    from mht.config.overlay import load_experiment
    from mht.reports.conclusion import OFF
    from mht.reports.guard import Bounds
    from mht.reports.seeds_page import seeds_page

    guard: GuardConfig | None = GuardConfig()
    if experiment:
        guard = load_experiment(experiment, params).benchmark.guard
    bounds = Bounds(**guard.model_dump()) if guard else OFF
    typer.echo(f"{seeds_page(folder, guard=bounds, baseline=baseline)} has all of it.")
