"""Compare all variants on the same unseen prompts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mht.pipeline.stage import run_stage
from mht.reports.benchmark import comparison_of
from mht.reports.records import Comparison
from mht.reports.tables import cost_rows, headline, table_rows
from mht.reports.write import flat, write_outputs

if TYPE_CHECKING:
    from mht.config import Config
    from mht.tracking import Run

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
    """Print the table and where to look next."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(headline(comparison)), box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("metric", no_wrap=True)
    for variant in comparison.variants:
        table.add_column(variant.name, justify="right", no_wrap=True)
    table.add_column(f"vs {comparison.baseline}", justify="right")
    table.add_column("verdict")
    for label, texts in cost_rows(comparison):
        table.add_row(label, *texts, "", "")
    for row in table_rows(comparison):
        cells = [cell["mean"] for cell in row["cells"]]
        verdict = f"[bold]{row['verdict']}[/]" if row["significant"] else row["verdict"]
        name = escape(f"{row['label']} {row['arrow']}")
        table.add_row(name, *cells, row["difference"]["value"], verdict)
    console = Console(highlight=False)
    if not console.is_terminal:  # a log has no width to fit
        console.width = 120
    console.print(table)
    for path, what in LOOK.items():
        console.print(f"  {path:34} {what}", soft_wrap=True)


if __name__ == "__main__":
    run_stage(main)
