"""Every output file of the benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mht.core.outputs import replaced_folder, write_bytes, write_text
from mht.core.stable_files import write_csv
from mht.evaluation.summary import significant, write_json
from mht.reports import tables
from mht.reports.conclusion import guard_json
from mht.reports.figures import plots
from mht.reports.learning.curves import as_csv, bands
from mht.reports.page.contents import html
from mht.reports.records import Comparison, Line

DIFFERENCE = ("difference", "difference_low", "difference_high", "p_value")


def write_outputs(
    comparison: Comparison, *, root: str | Path = ".", warn: Callable[[str], Any] = print
) -> None:
    """Write metrics, differences, tables, plots and the report.

    Args:
        comparison: of the variants.
        root: where ``reports/``, ``metrics/`` and ``plots/`` are.
        warn: called with a warning where the budgets are uneven.
    """
    root = Path(root)
    folder = root / "reports/benchmark"
    write_json(root / "metrics/benchmark.json", {v.name: v.summary for v in comparison.variants})
    write_json(root / "metrics/benchmark_differences.json", differences(comparison))
    write_text(root / "metrics/benchmark.csv", tables.csv_rows(comparison))
    with replaced_folder(root / "metrics/training") as curves:
        for name, rows in tables.training_rows(comparison).items():
            write_csv(curves / f"{name}.csv", rows)
    write_report(comparison, folder)
    if uneven := comparison.uneven():
        warn(uneven)


def write_report(comparison: Comparison, folder: Path) -> None:
    """Write tables, figures, the page and the data behind them into a folder."""
    write_text(folder / "table.md", tables.markdown_table(comparison))
    write_text(folder / "samples.md", tables.markdown_samples(comparison))
    write_json(folder / "guard.json", guard_json(comparison.findings))
    write_json(folder / "summary.json", summary(comparison))
    write_text(folder / "curves.csv", as_csv(bands(comparison.looks, **comparison.options)))
    light, dark = plots.figures(comparison), plots.figures(comparison, dark=True)
    for name, png in light.items():
        write_bytes(folder / f"{name}.png", png)
    write_text(folder / "report.html", html(comparison, light, dark))


def flat(comparison: Comparison) -> dict[str, float]:
    """``<variant>/<metric>`` to its mean, and the differences, for tracking."""
    found = {
        f"{v.name}/{metric}": value["mean"]
        for v in comparison.variants
        for metric, value in v.summary.items()
    }
    return found | {
        f"{comparison.subject}_minus_{comparison.baseline}/{metric}": d.difference
        for metric, d in comparison.differences[comparison.baseline].items()
    }


def differences(comparison: Comparison) -> dict[str, Any]:
    """Subject minus each other variant as plain data; chosen metrics with their adjusted p."""
    adjusted = {(line.b, line.metric): significant(line.p_adjusted) for line in comparison.lines}
    return {
        f"{comparison.subject}_minus_{other}": {
            metric: dict(zip(DIFFERENCE, map(significant, found[:4]), strict=True))
            | ({"p_adjusted": adjusted[other, metric]} if (other, metric) in adjusted else {})
            for metric, found in of.items()
        }
        for other, of in comparison.differences.items()
    }


def summary(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain data, for other programs."""
    first = comparison.variants[0].evaluated
    return {
        "seeds": comparison.seeds,
        "subject": comparison.subject,
        "baseline": comparison.baseline,
        "variants": {v.name: {"start": v.entry.start} for v in comparison.variants},
        "prompts": first.prompts,
        "responses_per_prompt": first.rounds,
        "split": comparison.split,
        "budget": {
            name: {cost: _spread(values) for cost, values in of.items()}
            for name, of in comparison.costs.items()
        },
        "metrics": {
            metric: {name: comparison[name].summary[metric] | own for name, own in of.items()}
            for metric, of in comparison.over_seeds.items()
        },
        "comparisons": [_line(line) for line in comparison.lines],
        "reach": comparison.reach,
        **comparison.options,
    }


def _spread(values: Any) -> dict[str, float]:
    return {
        "mean": significant(sum(values) / len(values)),
        "min": significant(min(values)),
        "max": significant(max(values)),
    }


def _line(line: Line) -> dict[str, Any]:
    found = {k: v if v is None else significant(v) for k, v in line.found._asdict().items()}
    own = {"metric": line.metric, "a": line.a, "b": line.b, "winner": line.winner}
    return {**own, **found, "p_adjusted": significant(line.p_adjusted)}
