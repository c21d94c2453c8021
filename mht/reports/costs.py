"""What each variant spent, and its looks at validation prompts against that, from the curves."""

from __future__ import annotations

from collections.abc import Sequence

from mht.reports.learning.curves import Columns, Curves, looks, total
from mht.reports.learning.reach import Curve
from mht.reports.records import Entry, stages_of


def costs_of(
    entries: Sequence[Entry], curves: Curves, seeds: int
) -> dict[str, dict[str, list[float]]]:
    """Variant to cost to its value for each seed; of those whose curves are there.

    A model that is measured as it is has spent nothing.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for entry in entries:
        for each in _trainings(entry, entries, curves, seeds):
            for cost, value in total(each).items():
                found.setdefault(entry.name, {}).setdefault(cost, []).append(value)
    return found


def looks_of(entries: Sequence[Entry], curves: Curves) -> dict[str, list[Curve]]:
    """Variant to its looks at validation prompts, for each seed; of those that have curves."""
    seeds = max(map(len, curves.values()), default=0)
    found = {e.name: _trainings(e, entries, curves, seeds) for e in entries if e.trained}
    return {name: [looks(each) for each in own] for name, own in found.items() if own}


def _trainings(
    entry: Entry, entries: Sequence[Entry], curves: Curves, seeds: int
) -> list[list[tuple[Columns, int]]]:
    """For each seed the trainings behind a variant; nothing where a curve is missing."""
    stages = stages_of(entry, entries)
    if not set(stages) <= curves.keys():
        return []
    sizes = {e.name: e.batch_size for e in entries}
    return [[(curves[s][i], sizes.get(s, 0)) for s in stages] for i in range(seeds)]
