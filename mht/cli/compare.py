"""`mht compare`: finished experiments, commits and branches side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mht.core.errors import UserError

if TYPE_CHECKING:
    from mht.config import Config
    from mht.experiments.revisions import State


def compare(
    results: Annotated[
        list[str] | None,
        typer.Argument(
            help="experiments, commits, branches, workspace; none: the experiments of HEAD, and "
            "the workspace where it differs"
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="HEAD, if left out and if it has results")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="benchmark.metrics, if left out"),
    ] = None,
    variant: Annotated[str | None, typer.Option(help="benchmark.subject, if left out")] = None,
    params: Annotated[Path, typer.Option(help="of the settings benchmark.*")] = Path("params.yaml"),
    page: Annotated[
        Path | None, typer.Option(help="write one experiment as an HTML page like the report")
    ] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="on stdout")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="on stdout")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="on stdout")] = False,
) -> None:
    """Tabulate finished experiments against a baseline: intervals, p after Holm's correction."""
    from mht.config import load_config
    from mht.experiments.compare import gather, tabulate
    from mht.experiments.revisions import states
    from mht.experiments.show import SHOWN

    settings = load_config(params)
    against, others = states(results or [], baseline, variant or settings.benchmark.subject)
    metrics = metric or settings.benchmark.metrics
    if page is not None:
        return _write(page, against, others, metrics, settings)
    asked = {"markdown": as_markdown, "csv": as_csv, "json": as_json}
    form = next((name for name, wanted in asked.items() if wanted), "terminal")
    table = tabulate(gather(against, others), metrics=metrics, **_draws(settings))
    typer.echo(SHOWN[form](table), nl=False)


def _write(
    page: Path, against: State, others: list[State], metrics: list[str], settings: Config
) -> None:
    from mht.core.outputs import write_text
    from mht.experiments.page import pair_page
    from mht.tracking.store import open_store, store_exists

    if len(others) > 1:
        names = ", ".join(other.name for other in others)
        raise UserError(f"--page: shows one experiment against {against.name}: name one of {names}")
    store = open_store(settings.base.experiment) if store_exists() else None
    samples, split = settings.benchmark.samples, settings.evaluate.split
    chosen = {"metrics": metrics, "samples": samples, "split": split, **_draws(settings)}
    write_text(page, pair_page(against, others[0], store, **chosen))
    typer.echo(page)


def _draws(settings: Config) -> dict[str, Any]:
    return {"resamples": settings.benchmark.resamples, "seed": settings.base.seed}
