"""What the stages left of each variant: metrics, responses and training curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mht.core.errors import DataError
from mht.core.seeds import place
from mht.evaluation.summary import Evaluated, or_nan, read_samples
from mht.reports.costs import costs_of, looks_of
from mht.reports.learning.curves import Curves, read_curves
from mht.reports.learning.reach import Curve
from mht.reports.records import Entry, Summary


class Results(NamedTuple):
    """What is left of all variants.

    Attributes:
        entries: the table of variants, in order.
        seeds: the training seeds.
        runs: variant to its responses with their numbers, for each seed.
        known: variant to its metrics with their intervals; nothing where there are several seeds.
        curves: the training curves.
        looks: variant to its looks at validation prompts, for each seed.
        costs: variant to cost to its value for each seed.
    """

    entries: Sequence[Entry]
    seeds: Sequence[int]
    runs: Mapping[str, Sequence[Evaluated]]
    known: Mapping[str, Summary]
    curves: Curves
    looks: Mapping[str, Sequence[Curve]]
    costs: Mapping[str, Mapping[str, Sequence[float]]]


def read_project(entries: Sequence[Entry], seeds: Sequence[int], root: str | Path = ".") -> Results:
    """What the stages left.

    Raises:
        DataError: a file is missing or broken; the message names it.
    """
    known = {e.name: read_summary(e.name, root) for e in entries} if len(seeds) == 1 else {}
    runs = {entry.name: read_runs(entry, seeds, root) for entry in entries}
    names = [*(entry.name for entry in reversed(entries)), "sft"]
    curves = read_curves(root, names, seeds)
    costs = costs_of(entries, curves, len(seeds))
    return Results(entries, seeds, runs, known, curves, looks_of(entries, curves), costs)


def read_runs(entry: Entry, seeds: Sequence[int], root: str | Path = ".") -> list[Evaluated]:
    """The responses of a variant, for each training seed.

    Raises:
        DataError: a file is missing or broken; the message names it.
    """
    folders = [place(Path(root, "reports/evaluate", entry.name), seeds, seed) for seed in seeds]
    return [read_samples(folder / "samples.jsonl") for folder in folders]


def read_summary(name: str, root: str | Path = ".") -> Summary:
    """The metrics of a variant's first seed with their intervals, as its evaluation wrote them.

    Raises:
        DataError: the file is missing or broken; the message names it.
    """
    path = Path(root, "metrics/evaluate", f"{name}.json")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file; evaluate the variant {name} first: dvc repro benchmark"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    wanted = {"mean", "low", "high"}
    if not isinstance(summary, dict) or not all(
        isinstance(value, dict) and wanted <= value.keys() for value in summary.values()
    ):
        raise DataError(f"{path}: each metric should hold mean, low and high")
    return {m: {key: or_nan(end) for key, end in of.items()} for m, of in summary.items()}


def check_prompts(runs: Mapping[str, Sequence[Evaluated]]) -> None:
    """Refuse variants that answered different prompts.

    Raises:
        DataError: naming two of them.
    """
    first, *_ = runs
    for name, own in runs.items():
        if any(run.ids != runs[first][0].ids for run in own):
            raise DataError(
                f"{first} and {name} were evaluated on different prompts: "
                "evaluate both again (dvc repro benchmark)"
            )
