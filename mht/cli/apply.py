"""`mht apply`: the settings of a task or an experiment into params.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mht.tasks.settings import experiment_files, settings_file, task_names


def _list_tasks(asked: bool) -> None:
    if asked:
        names = task_names()
        width = max(map(len, names))
        for name in names:
            typer.echo(f"{name:{width}}  {_short(settings_file(name))}")
        raise typer.Exit


def _short(file: Path) -> Path:
    """The file's path from the current folder, where it lies in it."""
    here = Path.cwd()
    return file.relative_to(here) if file.is_relative_to(here) else file


def apply(
    experiments: Annotated[
        list[str],
        typer.Argument(
            metavar="TASK|quick|FILE...", help="randomwalks, quick, mine.yaml: the last on top"
        ),
    ],
    params: Annotated[Path, typer.Option(help="the settings to change")] = Path("params.yaml"),
    _: Annotated[
        bool,
        typer.Option("--list", help="list the tasks", is_eager=True, callback=_list_tasks),
    ] = False,
) -> None:
    """Write the settings of tasks and files into params.yaml, after checking them.

    `quick` is the short profile of the task: `mht apply quick`, `mht apply randomwalks quick`.
    """
    from mht.config.overlays.overlay import apply_experiment, task_of

    files = experiment_files(experiments, task_of(params))
    apply_experiment([_short(file) for file in files], params)
    names = " and ".join(experiments)
    typer.echo(f"{params} now has the settings of {names}; `git diff {params}` shows them.")
    typer.echo("Next: dvc repro")
