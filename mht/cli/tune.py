"""`mht tune`: hyperparameter search on validation data, and the best of it into params.yaml."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mht.core.bounds import LONGEST_NAME
from mht.core.errors import UserError, shown
from mht.core.project import repo_root

if TYPE_CHECKING:
    import optuna

    from mht.experiments.search.run import Job, Search
    from mht.tracking.content.pipeline import Pipeline

STUDIES, REPORTS = Path(".mht/tune"), Path("reports/tune")


def tune(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="such as experiments/tune.yaml; the last one is uppermost"),
    ] = None,
    params: Annotated[Path, typer.Option(help="what they are laid over")] = Path("params.yaml"),
    name: Annotated[str, typer.Option(help="of the search; the last file's if left out")] = "",
    dvc: Annotated[bool, typer.Option("--dvc", help="each trial as a DVC experiment")] = False,
    trials: Annotated[int | None, typer.Option(min=1, help="instead of tune.trials")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="start the search anew")] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="write the best trial's values into params.yaml")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="of the report")] = None,
) -> None:
    """Search for good settings on validation data; the test split is never read.

    A killed search resumes with the trial that was running. `--apply` trains nothing.
    """
    from mht.experiments.search.study import load_optuna

    load_optuna()
    name = name or _name(files, params)
    if name != Path(name).name or not name.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"--name: letters, digits, - and _ alone, got {shown(name)}")
    if len(name) > LONGEST_NAME:
        raise UserError(f"--name: at most {LONGEST_NAME} characters, got {len(name)}")
    folder = repo_root() / STUDIES / name
    if apply:
        return _apply(folder, params)
    from mht.experiments.search.run import Search, alone, start_over

    with alone(folder):
        if fresh:
            start_over(folder)
        job = _job(name, folder, files or [], params, by_dvc=dvc, trials=trials)
        study = _go(Search(job))
    from mht.experiments.search.report import summary, write_report

    place = out or REPORTS / name
    write_report(study, place, name)
    typer.echo(summary(study, name))
    typer.echo(f"{place / 'report.html'} has all of it.")
    named = ["--name", name] if name != _name(files, params) else []
    again = " ".join(["mht tune", *map(str, files or []), *named, "--apply"])
    typer.echo(f"`{again}` writes the best into {params}.")


def _name(files: list[Path] | None, params: Path) -> str:
    """The default name of a search."""
    return (files[-1] if files else params).stem


def _go(search: Search) -> optuna.Study:
    """The finished study; if interrupted, print how to resume and exit."""
    from mht.tracking import Terminated

    try:
        return search.run()
    except (KeyboardInterrupt, Terminated) as signal:
        typer.echo("stopped: the same command resumes the trial that was running", err=True)
        raise typer.Exit(143 if isinstance(signal, Terminated) else 130) from None


def _job(
    name: str, folder: Path, files: list[Path], params: Path, *, by_dvc: bool, trials: int | None
) -> Job:
    """The checked description of the search.

    Raises:
        UserError: with every mistake.
    """
    from mht.checks.preflight import check
    from mht.config import Config, load_config
    from mht.config.overlays.overlay import layered, read_mapping, set_path, task_of
    from mht.core.component import build
    from mht.experiments.search.as_experiment import differences
    from mht.experiments.search.run import Job
    from mht.experiments.search.space import check_space
    from mht.pipeline.stage import prepare_process
    from mht.tasks.settings import experiment_files

    prepare_process("tune")
    settings = layered(experiment_files(files, task_of(params)), params)
    if trials is not None:
        set_path(settings, "tune.trials", trials)
    source = " with ".join(map(str, [params, *files]))
    config = build(Config, settings, source=source)
    check(config)
    pipeline = _pipeline()
    check_space(settings, config, pipeline, by_dvc=by_dvc)
    if not by_dvc:
        from mht.experiments.search.start import find_start

        start = find_start(config, load_config(params), pipeline, folder / "start")
        return Job(name, folder, settings, config, start, {})
    _check_dvc(params)

    def whole(path: str) -> str:
        return f"{path}: --dvc can't change this in params.yaml: `mht apply` the file first"

    changes = differences(read_mapping(params), settings, whole)
    return Job(name, folder, settings, config, None, changes)


def _check_dvc(params: Path) -> None:
    if params.resolve() != Path("params.yaml").resolve():
        raise UserError("--params: DVC's experiments read params.yaml: omit --params with --dvc")
    if shutil.which("dvc") is None:
        raise UserError("--dvc: no `dvc` on the PATH: activate the environment")


def _pipeline() -> Pipeline:
    from dvc.exceptions import DvcException

    from mht.tracking.content.pipeline import read_pipeline

    try:
        return read_pipeline()
    except DvcException as error:
        raise UserError(f"{Path.cwd().name}: no pipeline can be read here: {error}") from None


def _apply(folder: Path, params: Path) -> None:
    """Write the best trial's values into params.yaml and show what changed."""
    from mht.config.overlays.overlay import apply_values
    from mht.experiments.search.study import best, open_study

    found = best(open_study(folder))
    if found is None:
        raise UserError(f"{folder.name}: no trial has finished yet")
    before = params.read_text(encoding="utf-8")
    apply_values(found.params, params)
    after = params.read_text(encoding="utf-8")
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"{params} before", str(params), n=0, lineterm=""
    )
    typer.echo("\n".join(lines) or f"{params} has these values already")
    typer.echo(f"These are of trial {found.number}, whose objective was {found.value:.4g}.")
    typer.echo("Next: dvc repro")
