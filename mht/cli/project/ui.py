"""`mht ui`: MLflow's pages of this project, opened on its runs."""

from __future__ import annotations

import os
import subprocess
import sys
import webbrowser
from typing import Annotated

import typer

from mht.core.errors import UserError

RUNS = "#/experiments/{}/runs?workflowType=machine_learning"  # else MLflow shows traces first


def ui(
    port: Annotated[int, typer.Option(help="of 127.0.0.1")] = 5000,
    show: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
) -> None:
    """Show the runs in MLflow, until ctrl-C; reachable from this machine alone."""
    from mht.cli.project.pipelines import experiment_of, known_store, pipeline_at
    from mht.tracking.store import ENVIRONMENT, reachable, tracking_uri

    pipeline = pipeline_at(None)
    with reachable():
        store = known_store(pipeline)
    if store is None:
        raise UserError("nothing was tracked yet: run `dvc repro` first")
    uri = tracking_uri()
    server = uri if uri.startswith("http") else f"http://127.0.0.1:{port}"
    url = f"{server.rstrip('/')}/{RUNS.format(store.experiment_id)}"
    typer.echo(f"the runs of {experiment_of(pipeline.params)!r}: {url}")
    if show:
        webbrowser.open(url)
    if server == uri:
        return  # somebody else's server has them
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "ui", *options, "--backend-store-uri", uri]
    try:
        code = subprocess.run(command, env={**ENVIRONMENT, **os.environ}, check=False).returncode
    except KeyboardInterrupt:
        return
    raise typer.Exit(code)
