"""`mht demo`: the whole pipeline on a small task, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

TASK = ("randomwalks", "quick")
NEXT = """
Done in {seconds:.0f} s. Two models looked for short paths through a graph. One was taught by
examples alone (SFT), the hybrid by examples and a reward in turn. A reward of 1.0 means the
shortest path from every start.

Look at it
  {folder}/reports/benchmark/report.html   the comparison: tables, curves, samples
  cd {folder} && mht ui                    every run in MLflow, with its curves

Try an idea
  cd {folder}
  dvc exp run -S ppo.kl_coef=0.05          one setting: only what it changes runs again
  mht compare                              the experiments side by side
  mht apply randomwalks && dvc repro       ten seeds and all baselines, about 8 minutes
"""


def demo(
    folder: Annotated[Path, typer.Argument(help="where; made if need be")] = Path("demo"),
) -> None:
    """Run the whole pipeline on a small task: two minutes, nothing to download."""
    from mht.config.overlays.overlay import apply_experiment
    from mht.projects.make import commit, is_project, make_project
    from mht.tasks.settings import experiment_files

    began = time.monotonic()
    if not is_project(folder):
        make_project(folder, alone=True)
        apply_experiment(experiment_files(TASK), folder / "params.yaml")
        commit(folder, "Begin the demo")
    code = _repro(folder)
    if code:
        raise typer.Exit(code)
    commit(folder, "Run the demo")
    typer.echo(NEXT.format(seconds=time.monotonic() - began, folder=folder))


def _repro(folder: Path) -> int:
    """The exit code of `dvc repro` in a folder, whose stages run this Python."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "dvc", "repro"]
    return subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}).returncode
