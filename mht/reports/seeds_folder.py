"""The report of a folder of `mht seeds`, by the code that reports on the pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mht.core.errors import DataError
from mht.evaluation.statistics import STATISTICS
from mht.evaluation.summary import read_samples, significant, write_json
from mht.reports.compare import compared
from mht.reports.learning.curves import LOOK, STEPS, TIMES, TOKENS, Columns
from mht.reports.learning.reach import Curve
from mht.reports.read import Results
from mht.reports.records import Entry
from mht.reports.write import summary, write_report

RESULT, SAMPLES = "result.json", "samples.jsonl"
REPORT_FILES = ("report.html", "summary.json", "table.md", "samples.md", "guard.json",
                "curves.csv", "metrics.png", "frontier.png", "training.png")  # fmt: skip


def report_seeds(
    folder: str | Path,
    entries: Sequence[Entry],
    *,
    seeds: Sequence[int],
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write `REPORT_FILES` into a folder with ``seed_<n>/<variant>/``.

    Args:
        folder: of `mht seeds`.
        entries: the variants, in order.
        seeds: training seeds to read.
        settings: the variants as plain data, to be kept in the summary.
        **options: of `mht.reports.compare.compared`.

    Returns:
        What ``summary.json`` holds.

    Raises:
        DataError: a result is missing or broken, or the prompts differ.
        ConfigError: an unknown metric.
    """
    folder = Path(folder)
    comparison = compared(read_seeds(folder, entries, seeds), **options)
    write_report(comparison, folder)
    found = summary(comparison) | ({"variants": settings} if settings else {})
    write_json(folder / "summary.json", found)
    return found


def read_seeds(folder: Path, entries: Sequence[Entry], seeds: Sequence[int]) -> Results:
    """What `mht seeds` left.

    Raises:
        DataError: a result is missing or broken; the message names it.
    """
    places = {e.name: [folder / f"seed_{n}" / e.name for n in seeds] for e in entries}
    runs = {name: [read_samples(place / SAMPLES) for place in own] for name, own in places.items()}
    found = {name: [read_result(place / RESULT) for place in own] for name, own in places.items()}
    looks = {name: [one["curve"] for one in own] for name, own in found.items()}
    costs = {
        name: {key: [one["budget"][key] for one in own] for key in (STEPS, TOKENS, *TIMES)}
        for name, own in found.items()
    }
    trained = [e.name for e in reversed(entries) if e.trained]
    curves = {name: [_columns(curve) for curve in looks[name]] for name in trained}
    return Results(entries, seeds, runs, {}, curves, looks, costs)


def _columns(curve: Curve) -> Columns:
    """The looks as columns of a training curve, against the optimiser steps."""
    columns: Columns = {}
    for name in dict.fromkeys(key for row in curve for key in row):
        rows = [row for row in curve if name in row]
        columns[LOOK + name] = ([row[STEPS] for row in rows], [row[name] for row in rows])
    return columns


def read_result(path: Path) -> dict[str, Any]:
    """One of the JSON files.

    Raises:
        DataError: it is missing or broken.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `mht seeds` again") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    return found


def final_figures(folder: Path) -> dict[str, float]:
    """Every metric's value of one variant and seed, from its samples."""
    run = read_samples(folder / SAMPLES)
    found = {}
    for name, (columns, statistic) in run.units().items():
        data = np.asarray(columns, float)
        known = data[:, ~np.isnan(data).any(axis=0)]
        if known.size:
            found[name] = significant(float(STATISTICS[statistic](*known)))
    return found
