"""The `mht` command: settings, experiments, rewards, searches, texts, lineage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import mht
from mht.cli.apply import apply
from mht.cli.compare import compare
from mht.cli.generate import generate
from mht.cli.project.demo import demo
from mht.cli.project.doctor import doctor
from mht.cli.project.init import init
from mht.cli.project.pipelines import experiment_of, known_store, pipeline_at
from mht.cli.project.status import status
from mht.cli.project.ui import ui
from mht.cli.report import report
from mht.cli.tune import tune
from mht.core.errors import ConfigError, UserError

if TYPE_CHECKING:
    from mht.config import Config, HybridConfig

commands = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, init, apply, generate, tune, compare, report, status, doctor, ui):
    commands.command()(command)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"mht {mht.__version__}")
        raise typer.Exit


@commands.callback()
def main(
    _: Annotated[
        bool,
        typer.Option("--version", help="show it", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Modular HybridTrainer. The pipeline itself runs by `dvc repro`."""


def app() -> None:
    """Run the command; a user's mistake is one message and exit code 2."""
    try:
        commands()
    except UserError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(2) from None


@commands.command()
def check(path: Annotated[Path, typer.Argument(help="the settings")] = Path("params.yaml")) -> None:
    """Check the settings without running anything; report all errors together."""
    from mht.checks import watched
    from mht.checks.data_files import check_data, source_rows
    from mht.checks.names import names
    from mht.checks.preflight import notes, problems
    from mht.config import load_config

    try:
        config = load_config(path)
        data = check_data(config.data)
        unserved = [*names(config), *problems(config), *data, *watched.problems(config)]
        if unserved:
            raise ConfigError(list(dict.fromkeys(unserved)), str(path))
        noted = [f"  note: {note}" for note in notes(config, source_rows(config.data))]
    except UserError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{path} is right.")
    typer.echo("\n".join([*_summary(config), *noted]))


def _summary(config: Config) -> list[str]:
    totals = config.optimizer_steps
    after_sft = [name for name, row in config.baselines.items() if row.start == "sft"]
    before = f", before {' and '.join(after_sft)}" if after_sft else ""
    model = config.model
    adapters = f" through LoRA of rank {model.lora.r}" if model.lora else ""
    lines = [
        f"  model     {model.name}, {model.num_layers_unfrozen} layers train{adapters}"
        f"{_precision(config)}",
        f"  data      {config.data.source.type}",
        f"  sft       {config.sft.steps} optimiser steps{before}",
    ]
    lines += [f"  {name:9} {_steps(row)}" for name, row in config.baselines.items()]
    lines.append("  in all    " + ", ".join(f"{name} {n}" for name, n in totals.items()))
    trained = {totals[name] for name in config.baselines}
    if len(trained) > 1:
        lines.append("  note: the optimiser steps differ, so the benchmark's budgets are unequal")
    return lines


def _precision(config: Config) -> str:
    if config.model.dtype == "float32":
        return ""
    from mht.models.loading import resolve_device
    from mht.models.precision import resolve_dtype

    dtype = resolve_dtype(config.model.dtype, resolve_device(config.base.device))
    return f", computes in {dtype}"


def _steps(variant: HybridConfig) -> str:
    mixes = [
        " and ".join(f"{steps} {name.upper()} steps" for name, steps in cycle)
        for cycle in variant.plan
    ]
    mix = " to ".join(dict.fromkeys([*mixes[:1], *mixes[-1:]])) or "no steps"
    return (
        f"{variant.optimizer_steps} optimiser steps: {variant.cycles} cycles of {mix} "
        f"of {variant.updates_per_ppo_step} updates"
    )


@commands.command()
def rewards(
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="a type; all if omitted")] = "",
) -> None:
    """List every type of reward, or one type with its options."""
    from mht.cli.reward_types import show

    show(_console(), kind or None)


def _console() -> Any:
    """The terminal; without one, a console wide enough for the tables."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=120)


@commands.command()
def score(
    reward: Annotated[str, typer.Option(help="a type, YAML or JSON, or a file of it")],
    data: Annotated[Path, typer.Option(help="jsonl, json, csv, tsv, parquet or txt")],
    prompt: Annotated[str | None, typer.Option(metavar="COLUMN")] = None,
    response: Annotated[str | None, typer.Option(metavar="COLUMN")] = None,
    target: Annotated[str | None, typer.Option(metavar="COLUMN")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="score only the first rows")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="samples scored together")] = 64,
    samples: Annotated[int, typer.Option(min=0, help="lowest and highest to show")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="figures as JSON on stdout")] = False,
    out: Annotated[Path | None, typer.Option(help="where to write all samples, scored")] = None,
) -> None:
    """Score a file's responses by a reward: figures, a histogram, the lowest and the highest."""
    from mht.cli import score_file, score_report
    from mht.rewards.spec import read_reward

    if out:
        score_report.check_out(out, data)
    scorer = read_reward(reward)
    columns = score_file.Columns(prompt, response, target)
    found = score_file.score(scorer, score_file.read_samples(data, columns, limit), batch_size)
    if out:
        score_report.write(found, out)
    if as_json:
        typer.echo(score_report.as_json(found, samples))
    else:
        score_report.show(_console(), found, samples)


@commands.command()
def lineage(
    rev: Annotated[str, typer.Argument(help="commit or experiment; the workspace if omitted")] = "",
) -> None:
    """List the MLflow run that made each stage's outputs, found by their content."""
    from mht.tracking.states import lineage as look_up
    from mht.tracking.store import reachable

    pipeline = pipeline_at(rev or None)
    with reachable():
        rows = look_up(known_store(pipeline), pipeline)
    width = max((len(made.stage) for made in rows), default=0)
    for made in rows:
        if made.run:
            above = f" in {made.pipeline_run.name}" if made.pipeline_run else ""
            text = f"{made.run.id}{above}"
        else:
            text = "its run is not on this machine" if made.ran else "not run yet"
        typer.echo(f"{made.stage:{width}}  {text}")


@commands.command()
def sync() -> None:
    """Add a row to MLflow for every pipeline state that came from DVC's cache without running.

    The states are those of HEAD, of every experiment and of the workspace. A second sync adds none.
    """
    from mht.tracking.states import sync as add_rows
    from mht.tracking.store import open_store, reachable

    experiment = experiment_of(pipeline_at(None).params)
    with reachable():
        rows = add_rows(open_store(experiment), _effective)
    for row in rows:
        what = "added" if row.added else "already there" if row.run_id else "not a complete run"
        typer.echo(f"{row.name}: {what}")


def _effective(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """All settings with their defaults; if they are of an older version, as written."""
    from mht.config import Config
    from mht.core.component import build

    try:
        return build(Config, params).model_dump(mode="json")
    except ConfigError:
        return params
