"""`mht init`: a project of the user's own, which runs the installed package."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import mht
from mht.core.errors import UserError
from mht.data.sources.base import OptionError

if TYPE_CHECKING:
    from mht.projects.own_data import OwnData

EXAMPLE = "prompt=question --column target=answer"
ROLES = "text, messages, prompt, target, rating, label, chosen, rejected"


def init(
    folder: Annotated[Path, typer.Argument(help="where; made if need be")] = Path(),
    data: Annotated[str | None, typer.Option(help="a file, or a hub data set, to train on")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=COLUMN", help=f"which column is what; roles: {ROLES}"),
    ] = None,
    task: Annotated[str | None, typer.Option(help="a built-in task: mht apply --list")] = None,
    update: Annotated[
        bool, typer.Option("--update", help="dvc.yaml and stages as this version has them")
    ] = False,
) -> None:
    """Make a project: settings, pipeline, folders for your data and rewards, git and DVC."""
    from mht.config.overlays.overlay import apply_experiment
    from mht.projects.make import commit, make_project, update_project
    from mht.tasks.settings import experiment_files

    if update:
        update_project(folder)
        typer.echo(f"{folder}: dvc.yaml and stages are those of this mht; see `git diff`.")
        return
    if data and task:
        raise UserError("mht init: give --data or --task, not both")
    settings = experiment_files([task]) if task else []
    own = _read(data, _columns(column or [])) if data else None
    root = make_project(folder)
    with _inside(root):
        if own:
            _take_in(own)
        elif settings:
            apply_experiment(settings)
        committed = commit(Path(), f"Begin with mht {mht.__version__}")
    typer.echo(f"\n{folder} is a project of MHT{', with a first commit' if committed else ''}.")
    there = [] if root.resolve() == Path.cwd().resolve() else [f"cd {folder}"]
    typer.echo("Next:")
    for line in [
        *there,
        "mht check",
        "mht apply quick     # minutes in place of an hour",
        "dvc repro",
    ]:
        typer.echo(f"  {line}")


def _columns(given: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    wrong = next((text for text, (_, sign, _) in zip(given, pairs, strict=True) if not sign), None)
    if wrong is not None:
        raise UserError(f"--column {wrong}: give ROLE=COLUMN, such as text=body; roles: {ROLES}")
    return {role: name for role, _, name in pairs}


def _read(data: str, columns: Mapping[str, str]) -> OwnData:
    """The data; columns that can't be guessed are asked for where somebody can answer."""
    from mht.projects.own_data import columns_of, read_own

    try:
        return read_own(data, columns)
    except OptionError as error:
        if columns or not _can_answer():
            raise UserError(f"{error}, or give --column {EXAMPLE}") from None
        typer.echo(str(error))
        typer.echo(f"Columns: {', '.join(columns_of(data))}")
        return read_own(data, _asked())


def _can_answer() -> bool:
    return sys.stdin.isatty()


def _asked() -> dict[str, str]:
    """Role to column, as the user answers."""
    text = typer.prompt("Column of texts to continue (none: prompts with answers)", default="")
    if text:
        return {"text": text}
    return {role: typer.prompt(f"Column of the {role}") for role in ("prompt", "target")}


def _take_in(own: OwnData) -> None:
    """Put the data into the project and show how the model will read them."""
    from mht.config import load_config
    from mht.projects.own_data import shown_rows

    copy = own.take_in()
    settings = load_config().data
    for line in shown_rows(own.rows, settings.prompt_words, settings.segmenter):
        typer.echo(line)
    if copy is not None:
        typer.echo(f"{copy} is in DVC's cache, and git has {copy}.dvc in its place.")


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """The folder as the working folder of a block."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
