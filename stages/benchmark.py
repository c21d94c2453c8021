"""Compare all variants on the same unseen prompts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mht.pipeline.stage import run_stage
from mht.reports.benchmark import comparison_of
from mht.reports.records import Comparison
from mht.reports.tables import cost_rows, headline, table_rows
from mht.reports.write import flat, write_outputs

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mht.config import Config
    from mht.tracking import Run

WIDTH = 80  # of a log
LOOK = {
    "reports/benchmark/report.html": "all of it on one page",
    "reports/benchmark/samples.md": "the same prompts, all variants",
    "metrics/benchmark.json": "every metric with its interval",
}


def main(config: Config, run: Run) -> None:
    """Write metrics/benchmark.json, the tables, the plots and the report."""
    comparison = comparison_of(config)
    write_outputs(comparison, warn=lambda text: print(f"warning: {text}", file=sys.stderr))
    show(comparison)
    run.summary(flat(comparison))
    for path in ("metrics/benchmark.json", "metrics/benchmark_differences.json"):
        run.artifact(path)
    run.artifact("reports/benchmark")


def show(comparison: Comparison) -> None:
    """Print the table as far as it fits, and where to look next."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:  # a log has no width to fit
        console.width = WIDTH
    names, left_out = _that_fit(comparison, console)
    console.print(_table(comparison, names))
    if left_out:
        console.print(f"  {', '.join(left_out)}: in the report", soft_wrap=True)
    for path, what in LOOK.items():
        console.print(f"  {path:34} {what}", soft_wrap=True)


def _that_fit(comparison: Comparison, console: Console) -> tuple[list[str], list[str]]:
    """The variants whose columns fit, subject and baseline always, and the others."""
    names, left_out = list(comparison.names), []
    while console.measure(_table(comparison, names)).maximum > console.width:
        spare = [name for name in names if name not in (comparison.subject, comparison.baseline)]
        if not spare:
            break
        left_out.append(spare[0])
        names.remove(spare[0])
    return names, left_out


def _table(comparison: Comparison, names: Sequence[str]) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    places = [comparison.names.index(name) for name in names]
    table = Table(title=escape(headline(comparison)), box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("metric", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"vs {comparison.baseline}", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for label, texts in cost_rows(comparison):
        table.add_row(label, *(texts[place] for place in places), "", "")
    for row in table_rows(comparison):
        cells = [row["cells"][place]["mean"] for place in places]
        verdict = f"[bold]{row['verdict']}[/]" if row["significant"] else row["verdict"]
        name = escape(f"{row['label']} {row['arrow']}")
        table.add_row(name, *cells, row["difference"]["value"], verdict)
    return table


if __name__ == "__main__":
    run_stage(main)
