"""A comparison of experiments as a person or a program reads it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from mht.evaluation.metrics import describe
from mht.evaluation.summary import plain_ends
from mht.experiments.compare import Line, Table
from mht.experiments.revisions import worded
from mht.reports.wording import ends, number, signed

NOTHING = "nothing in params.yaml"
WIDTH = 80  # of a file or a pipe


def markdown(table: Table) -> str:
    """The changed settings, then a table for each metric."""
    head = ["experiment", "changed settings"]
    rows = [[name, "; ".join(texts)] for name, texts in _changes(table)]
    parts = [f"{reading(table)}\n", _markdown(head, ["---", "---"], rows)]
    for metric, lines in _by_metric(table):
        head = [_label(metric), "mean", "difference", "p", "verdict"]
        parts.append(_markdown(head, ["---", "---:", "---:", "---:", "---"], map(_row, lines)))
    return "\n".join(parts)


def terminal(table: Table) -> str:
    """The same in aligned columns, as wide as the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Columns
    from rich.text import Text

    file = io.StringIO()
    console = Console(highlight=False)
    width = console.width if console.is_terminal else WIDTH
    console = Console(file=file, highlight=False, width=width, force_terminal=console.is_terminal)
    console.print(Text(reading(table)))
    shown = Columns("experiment", "changed settings", box=box.SIMPLE_HEAD)
    for name, texts in _changes(table):
        shown.add_row(Text(name), Text("\n".join(texts)))
    console.print(shown)
    shown = Columns(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.add_column("")
    for title in ("mean", "difference", "p"):
        shown.add_column(title, justify="right", no_wrap=True)
    shown.add_column("verdict", no_wrap=True)
    for metric, lines in _by_metric(table):
        shown.add_row(Text(_label(metric), "bold"))
        for line in lines:
            name, *cells, verdict = _row(line)
            shown.add_row(
                Text(f"  {name}"), *map(Text, cells), Text(verdict, STYLES.get(verdict, ""))
            )
        shown.add_section()
    console.print(shown)
    return file.getvalue()


STYLES = {"better": "bold green", "worse": "bold red", "differs": "bold", "unclear": "dim"}


def reading(table: Table) -> str:
    """How the numbers came about."""
    over = f"{table.seeds} training seeds and" if table.seeds > 1 else "one training seed,"
    return (
        f"Against {table.baseline}; {over} {table.prompts} prompts; 95% intervals; p after Holm's "
        "correction for all lines."
    )


def as_csv(table: Table) -> str:
    """A row for each line; an empty cell is none."""
    file = io.StringIO()
    said = dict(_changes(table))
    rows = [
        {**plain_ends(asdict(line)), "changed": "; ".join(said.get(line.name, []))}
        for line in table.lines
    ]
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def as_json(table: Table) -> str:
    """All of it."""
    data = plain_ends(asdict(table))
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _changes(table: Table) -> list[tuple[str, list[str]]]:
    return [(name, worded(changes) or [NOTHING]) for name, changes in table.changes.items()]


def _by_metric(table: Table) -> Iterator[tuple[str, list[Line]]]:
    for metric in table.metrics:
        yield metric, [line for line in table.lines if line.metric == metric]


def _label(metric: str) -> str:
    entry = describe(metric)
    return f"{entry.label} {entry.arrow}".strip()


def _markdown(head: Sequence[str], rule: Sequence[str], rows: Iterator[list[str]] | list) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))


def _row(line: Line) -> list[str]:
    mean = f"{number(line.mean)} {ends(line.low, line.high)}"
    if line.difference is None:
        return [line.name, mean, "", "", line.verdict]
    found = ends(line.difference_low, line.difference_high)
    p = line.p_adjusted or 0.0
    shown = "< 0.001" if p < 0.001 else f"{p:.3f}"
    return [line.name, mean, f"{signed(line.difference)} {found}", shown, line.verdict]


SHOWN: dict[str, Callable[[Table], str]] = {
    "terminal": terminal,
    "markdown": markdown,
    "csv": as_csv,
    "json": as_json,
}
