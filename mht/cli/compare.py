"""`mht compare`: finished DVC experiments side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    results: Annotated[
        list[str] | None,
        typer.Argument(help="DVC experiments or revisions; none is all experiments"),
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="the workspace, if left out")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="benchmark.metrics, if left out"),
    ] = None,
    variant: Annotated[str, typer.Option(help="of a DVC experiment")] = "hybrid",
    params: Annotated[Path, typer.Option(help="of the settings benchmark.*")] = Path("params.yaml"),
    as_csv: Annotated[bool, typer.Option("--csv", help="on stdout")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="on stdout")] = False,
) -> None:
    """Tabulate finished experiments against a baseline: intervals, p after Holm's correction."""
    from mht.config import load_config
    from mht.experiments import compare as comparing

    settings = load_config(params)
    found = comparing.gather(results or [], variant)
    table = comparing.tabulate(
        found,
        metrics=metric or settings.benchmark.metrics,
        baseline=baseline,
        resamples=settings.benchmark.resamples,
        seed=settings.base.seed,
    )
    write = comparing.as_csv if as_csv else comparing.as_json if as_json else comparing.markdown
    typer.echo(write(table), nl=False)
