"""`mht seeds`, `ablations`, `compare` and `evidence`: many settings side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Track = Annotated[bool, typer.Option(help="a run in MLflow for each variant and seed")]


def seeds(
    experiment: Annotated[Path, typer.Argument(help="such as randomwalks")],
    variants: Annotated[
        Path | None, typer.Option(help="a file laid over both, with benchmark.variants")
    ] = None,
    params: Annotated[Path, typer.Option(help="what it is laid over")] = Path("params.yaml"),
    out: Annotated[Path | None, typer.Option(help="reports/seeds/<name> if left out")] = None,
    count: Annotated[
        int | None, typer.Option(help="instead of benchmark.seeds", min=1, max=1000)
    ] = None,
    track: Track = True,
) -> None:
    """Train and compare all variants for several training seeds, without DVC.

    Results that are there already are kept, so a killed run goes on where it was.
    """
    from mht.pipeline.stage import prepare_process

    prepare_process("seeds")
    from mht.experiments.evidence import plan, tracking_of
    from mht.experiments.seeds import run_seeds

    benchmark = plan(experiment, variants, params=params, out=out, count=count)
    folder = benchmark.folder
    with tracking_of(benchmark, tracked=track) as runs:
        run_seeds(benchmark.config, folder, seeds=benchmark.seeds, tracking=runs)
    typer.echo((folder / "table.md").read_text(encoding="utf-8"))
    typer.echo(f"{folder / 'summary.json'} has all of it; curves.png and front.png show it.")


def ablations(
    file: Annotated[Path, typer.Argument(help="with benchmark.variants")] = Path(
        "experiments/ablations.yaml"
    ),
    params: Annotated[Path, typer.Option(help="what the pipeline reads")] = Path("params.yaml"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only print the commands")] = False,
) -> None:
    """Queue the variants of a file as DVC experiments; what is queued or done already stays."""
    from mht.experiments.ablations import experiments_of, lost, queue

    experiments = experiments_of(file, params)
    if dry_run:
        for experiment in experiments:
            typer.echo(experiment.command)
        return
    for experiment, outcome in queue(experiments):
        typer.echo(f"{experiment.name:20} {outcome}")
    for name in lost():
        typer.echo(f"{name:20} its worker has died: `dvc queue kill {name}`, then queue it again")
    typer.echo(
        "\n`dvc queue start` trains them, `dvc queue start --jobs 2` two at a time; then\n"
        "`mht compare` tabulates them, `dvc exp show --only-changed` shows settings and results."
    )


def compare(
    results: Annotated[
        list[str] | None,
        typer.Argument(help="folders of mht seeds, or DVC experiments; none is all experiments"),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="the benchmark's subject, or the workspace, if left out")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="the folder's, or benchmark.metrics, if left out"),
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
        metrics=metric or found.metrics or settings.benchmark.metrics,
        baseline=baseline,
        resamples=settings.benchmark.resamples,
        seed=settings.base.seed,
    )
    write = comparing.as_csv if as_csv else comparing.as_json if as_json else comparing.markdown
    typer.echo(write(table), nl=False)


def evidence(
    file: Annotated[Path, typer.Argument(help="the benchmarks")] = Path(
        "experiments/evidence.yaml"
    ),
    params: Annotated[Path, typer.Option(help="what they are laid over")] = Path("params.yaml"),
    track: Track = True,
) -> None:
    """Rebuild the evidence: every benchmark over seeds of a file; goes on where it was."""
    from mht.pipeline.stage import prepare_process

    prepare_process("evidence")
    from mht.experiments.evidence import read, rebuild

    for benchmark, _ in rebuild(read(file, params), tracked=track):
        typer.echo(f"{benchmark.folder / 'table.md'}:\n")
        typer.echo((benchmark.folder / "table.md").read_text(encoding="utf-8"))
