"""`mht report`: the benchmark's page with where it comes from and what changed."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer


def report(
    rev: Annotated[
        str, typer.Argument(help="an experiment, commit or branch; the workspace if left out")
    ] = "workspace",
    against: Annotated[
        str | None, typer.Option(help="whose report to compare with; HEAD, if it has results")
    ] = None,
    out: Annotated[Path, typer.Option(help="the page")] = Path(".mht/report.html"),
    show: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
) -> None:
    """Write the report with date, commit, model, data, runs, and the settings that changed."""
    from mht.config import load_config
    from mht.core.outputs import write_text
    from mht.experiments.page import report_page
    from mht.experiments.revisions import State
    from mht.tracking.store import open_store, store_exists

    settings = load_config()
    variant = settings.benchmark.subject
    last = State(against, variant) if against else State.of_head(variant)
    if last and last.name == rev:
        last = None
    store = open_store(settings.base.experiment) if store_exists() else None
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, report_page(State(rev, variant), last, store))
    typer.echo(out)
    if show:
        webbrowser.open(out.resolve().as_uri())
