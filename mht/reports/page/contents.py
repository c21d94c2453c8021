"""What stands on the benchmark's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mht.evaluation.metrics import describe
from mht.reports import tables
from mht.reports.figures.palette import slots
from mht.reports.learning.reach_table import reach_rows, reach_sentence
from mht.reports.page.browser import browser_data
from mht.reports.page.render import figure_parts, guard_part, page
from mht.reports.records import Comparison
from mht.reports.wording import cell

TITLES = {
    "metrics": "Every metric, every variant",
    "frontier": "Reward against drift",
    "training": "While training",
}
ONE_SEED = {
    "metrics": "Bars are means over the prompts, lines their 95% bootstrap intervals.",
    "frontier": "A good variant earns reward without leaving the model it began with behind. Left: "
    "means on the {split} prompts with 95% intervals. Right: running means of the logs of the PPO "
    "steps, against the KL to the reference of each.",
    "training": "From the logs of the training stages, not from the {split} prompts.",
}
SEEDS = {
    "metrics": "Bars are means over seeds and prompts, lines their 95% intervals over both.",
    "frontier": ONE_SEED["frontier"] + " The logs' are interquartile means over seeds.",
    "training": ONE_SEED["training"] + " Bands are 95% intervals over seeds.",
}


def html(
    comparison: Comparison,
    light: Mapping[str, bytes],
    dark: Mapping[str, bytes],
    *,
    eyebrow: str = "MHT benchmark",
    about: Sequence[Mapping[str, str]] = (),
    changed: Sequence[Sequence[str]] | None = None,
) -> str:
    """One page that needs no other file and no network.

    Args:
        comparison: of the variants.
        light: figure name to PNG, for light paper.
        dark: the same for dark paper.
        eyebrow: the title.
        about: where each variant comes from, if each is a state of a project.
        changed: setting, old and new value, of those that differ between two states.
    """
    names, captions = comparison.names, SEEDS if len(comparison.seeds) > 1 else ONE_SEED
    return page(
        variants=names,
        sentences=comparison.sentences,
        data=browser_data({v.name: v.evaluated for v in comparison.variants}, comparison.baseline),
        eyebrow=eyebrow,
        about=about,
        changed=changed,
        headline=tables.headline(comparison),
        reading=tables.reading(comparison),
        warning=comparison.uneven(),
        extra=[tables.difference_head(comparison), "verdict"],
        rows=_rows(comparison),
        guard=guard_part(comparison.findings, names),
        comparisons=tables.wins_rows(comparison),
        reach=_reach(comparison),
        figures=figure_parts(light, dark, TITLES, captions, comparison.split),
        choice=tables.choice(comparison),
        samples_note=tables.samples_note(comparison),
        samples=[_sample(comparison, i) for i in comparison.rows],
        others=_others(comparison),
        runs=[] if about else _runs(comparison),
    )


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    blank = {"text": "", "small": "", "state": ""}
    rows: list[dict[str, Any]] = []
    for label, texts in tables.cost_rows(comparison):
        cells = [{"mean": text, "low": "", "high": ""} for text in texts]
        row: dict[str, Any] = {"label": label, "arrow": "", "meaning": "", "cells": cells}
        rows.append({**row, "extra": [blank, blank]})
    for row in tables.table_rows(comparison):
        found = row["difference"]
        difference = {"text": found["value"], "small": found["interval"], "state": ""}
        state = row["verdict"] if row["significant"] else "unclear"
        verdict = {"text": row["verdict"], "small": found["p"], "state": state}
        rows.append({**row, "extra": [difference, verdict]})
    return rows


def _reach(comparison: Comparison) -> dict[str, Any] | None:
    if comparison.reach is None:
        return None
    head, _, *rows = reach_rows(comparison.reach)
    return {"sentence": reach_sentence(comparison.reach), "rows": [head, *rows]}


def _sample(comparison: Comparison, i: int) -> dict[str, Any]:
    score = tables.score_shown(comparison)
    numbers = slots(comparison.names)
    return {
        "prompt": tables.prompt_shown(comparison, i),
        "cells": [
            {
                "variant": v.name,
                "slot": numbers[v.name],
                "response": tables.response_shown(v, i),
                "label": describe(score).label if score else "",
                "score": v.evaluated.per_sample[score][i] if score else None,
            }
            for v in comparison.variants
        ],
    }


def _others(comparison: Comparison) -> list[dict[str, Any]]:
    """Every metric that the table does not show, with its means."""
    names = sorted({m for v in comparison.variants for m in v.summary} - set(comparison.metrics))
    return [
        {
            "label": describe(name).label,
            "arrow": describe(name).arrow,
            "meaning": describe(name).meaning,
            "cells": [cell(v.summary.get(name)) for v in comparison.variants],
        }
        for name in names
    ]


def _runs(comparison: Comparison) -> list[tuple[str, str]]:
    """What was made, and the stage that made it."""
    trained = [v.name for v in comparison.variants if v.entry.trained]
    return [
        ("the SFT model", "sft"),
        *((name, f"ppo@{name}") for name in trained),
        *((f"{name}'s figures", f"evaluate@{name}") for name in trained),
        ("this report", "benchmark"),
    ]
