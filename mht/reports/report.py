"""The benchmark as text: Markdown tables, the CSV for `dvc plots`, and the HTML page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from mht.evaluation.metrics import GROUP, describe
from mht.reports.conclusion import guard_rows
from mht.reports.figures.palette import slots
from mht.reports.page.browser import browser_data, scores_of
from mht.reports.page.render import figure_parts, guard_part, page
from mht.reports.wording import cell, ends, markdown, number, p_text, pipes

if TYPE_CHECKING:
    from mht.reports.benchmark import Comparison, Variant
    from mht.reports.guard import Finding

LONGEST = 240  # characters of a response that tables show
ABSENT = "-"
TITLES = {
    "metrics": "Every metric, every variant",
    "frontier": "Reward against drift",
    "training": "While training",
}
CAPTIONS = {
    "metrics": "Bars are means over the prompts, lines their 95% bootstrap intervals.",
    "frontier": "A good variant earns reward without leaving the model it began with behind. Left: "
    "means on the {split} prompts with 95% intervals. Right: running means of the logs of the PPO "
    "steps, against the KL to the reference of each.",
    "training": "From the logs of the training stages, not from the {split} prompts.",
}
RUNS = [  # what was made, and the stage that made it
    ("the SFT model", "sft"),
    ("hybrid", "ppo"),
    ("sft_only", "baseline@sft_only"),
    ("ppo_only", "baseline@ppo_only"),
    ("hybrid's figures", "evaluate"),
    ("this report", "benchmark"),
]


def table_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The table's content, a row per chosen metric, for Markdown, HTML and the terminal alike."""
    rows = []
    for metric in comparison.metrics:
        verdict = comparison.verdict(metric)
        cells = [v.summary.get(metric) for v in comparison.variants]
        rows.append(
            {
                "name": metric,
                "label": describe(metric).label,
                "arrow": describe(metric).arrow,
                "meaning": describe(metric).meaning,
                "cells": [cell(one) for one in cells],
                "difference": _difference(comparison, metric),
                "verdict": verdict,
                "significant": verdict != "unclear",
            }
        )
    return rows


def markdown_table(comparison: Comparison) -> str:
    """Metrics by variants with intervals, optimiser steps, differences and how to read it."""
    names = [v.name for v in comparison.variants]
    head = ["metric", *names, f"hybrid - {comparison.baseline}", "verdict"]
    lines = [head, ["---", *["---:"] * (len(names) + 1), "---"]]
    steps = [str(v.steps) for v in comparison.variants]
    lines.append(["optimiser steps", *steps, "", ""])
    for row in table_rows(comparison):
        label = f"{row['label']} {row['arrow']}".strip()
        cells = [_with_ends(c) for c in row["cells"]]
        strong = "**" if row["significant"] else ""
        difference, verdict = row["difference"], row["verdict"]
        lines.append([label, *cells, difference["text"], f"{strong}{verdict}{strong}"])
    described = {m: describe(m) for m in comparison.metrics}
    notes = [f"- **{d.label}** (`{m}`): {d.meaning}" for m, d in described.items()]
    return "\n".join(
        ["# Benchmark", "", *said(comparison), reading(comparison), "", *pipes(lines), "",
         *warnings(comparison), *guard_table(comparison.findings), *notes, ""]
    )  # fmt: skip


def said(comparison: Comparison) -> list[str]:
    """The conclusion as a Markdown list."""
    return [*(f"- {text}" for text in comparison.sentences), ""] if comparison.sentences else []


def guard_table(findings: Sequence[Finding]) -> list[str]:
    """The guard's table as Markdown lines; what is broken is bold."""
    if not findings:
        return []
    rows = [["guard", "bound", *(escape(f.variant) for f in findings)]]
    rows.append(["---", "---:", *("---:" for _ in findings)])
    for row in guard_rows(findings):
        cells = [_guard_cell(cell) for cell in row["cells"]]
        rows.append([row["label"], row["bound"], *cells])
    against = f"Each variant against {findings[0].baseline}; bold is beyond its bound."
    return [against, "", *pipes(rows), ""]


def _guard_cell(cell: Mapping[str, str]) -> str:
    text = f"**{cell['text']}**" if cell["state"] == "bad" else cell["text"]
    return f"{text} ({cell['note']})" if cell["note"] else text


def markdown_samples(comparison: Comparison) -> str:
    """The same prompts' responses of all variants, side by side."""
    names = [v.name for v in comparison.variants]
    lines = [["prompt", *names], ["---"] * (len(names) + 1)]
    for i in comparison.rows:
        prompt = _line(comparison.variants[0].evaluated.samples[i].prompt)
        cells = [markdown(_response(v, i)) + _score(v, i) for v in comparison.variants]
        lines.append([f"**{markdown(prompt)}**", *cells])
    return "\n".join(
        ["# The same prompts, all variants", "", choice(comparison), "", *pipes(lines), ""]
    )


def csv_rows(comparison: Comparison) -> str:
    """``variant, metric, mean, low, high`` of every metric, for `dvc plots`."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["variant", "metric", "mean", "low", "high"])
    for v in comparison.variants:
        for metric, value in sorted(v.summary.items()):
            low, high = ("" if math.isnan(value[key]) else value[key] for key in ("low", "high"))
            writer.writerow([v.name, metric, value["mean"], low, high])
    return file.getvalue()


def html(comparison: Comparison, light: Mapping[str, bytes], dark: Mapping[str, bytes]) -> str:
    """One page that needs no other file and no network.

    Args:
        comparison: of the variants.
        light: figure name to PNG, for light paper.
        dark: the same for dark paper.
    """
    names = [v.name for v in comparison.variants]
    return page(
        variants=names,
        sentences=comparison.sentences,
        data=browser_data({v.name: v.evaluated for v in comparison.variants}, comparison.baseline),
        eyebrow="MHT benchmark",
        headline=headline(comparison),
        reading=reading(comparison),
        warning=comparison.uneven(),
        extra=[f"hybrid - {comparison.baseline}", "verdict"],
        rows=_page_rows(comparison),
        guard=guard_part(comparison.findings, names),
        figures=figure_parts(light, dark, TITLES, CAPTIONS, comparison.split),
        choice=choice(comparison),
        samples=[_sample(comparison, i) for i in comparison.rows],
        others=_others(comparison),
        runs=RUNS,
    )


def headline(comparison: Comparison) -> str:
    """One sentence: the first metric of the hybrid against the baseline's."""
    metric, baseline = comparison.metrics[0], comparison.baseline
    hybrid = comparison["hybrid"].summary.get(metric)
    other = comparison[baseline].summary.get(metric)
    label = describe(metric).label
    if hybrid is None or other is None:
        return f"{comparison.asked}, {len(comparison.variants)} variants"
    text = f"{label}: hybrid {number(hybrid['mean'])}, {baseline} {number(other['mean'])}"
    return f"{text} ({comparison.verdict(metric)})"


def reading(comparison: Comparison) -> str:
    """How the table's numbers came about."""
    return (
        f"Means over {comparison.asked} with 95% bootstrap intervals; every "
        f"variant answered the same prompts. Distinct-n is counted in groups of {GROUP} responses. "
        f"Differences are paired by prompt; the verdict is unclear unless the permutation test's "
        f"p-value, adjusted for the number of metrics shown (Holm), is below 0.05. "
        "The guard asks each of its questions by itself, so its p-values are not adjusted. "
        "The intervals cover the choice of prompts, not the choice of training seed."
    )


def choice(comparison: Comparison) -> str:
    """Which prompts are shown, and what the small number is."""
    shown = f"{len(comparison.rows)} of {comparison.prompts} prompts, evenly spaced, not picked."
    score = _score_shown(comparison)
    return shown + (f" The number is {describe(score).label}." if score else "")


def warnings(comparison: Comparison) -> list[str]:
    """The budget's warning as a Markdown paragraph, where there is one."""
    text = comparison.uneven()
    return [f"> Warning: {text}", ""] if text else []


def _with_ends(shown: Mapping[str, str]) -> str:
    if not shown["high"]:
        return shown["mean"] + (f" ({shown['low']})" if shown["low"] else "")
    return f"{shown['mean']} [{shown['low']}, {shown['high']}]"


def _difference(comparison: Comparison, metric: str) -> dict[str, str]:
    found = comparison.differences.get(metric)
    if found is None:
        return {"text": ABSENT, "value": ABSENT, "interval": "", "p": ""}
    value = ("+" if found.difference > 0 else "") + number(found.difference)
    interval = ends(found.low, found.high)
    p = p_text(comparison.adjusted[metric])
    return {"text": f"{value} {interval}, {p}", "value": value, "interval": interval, "p": p}


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


def _page_rows(comparison: Comparison) -> list[dict[str, Any]]:
    blank = {"text": "", "small": "", "state": ""}
    steps = [{"mean": v.steps, "low": "", "high": ""} for v in comparison.variants]
    first = {"label": "Optimiser steps", "arrow": "", "meaning": "", "cells": steps}
    rows = [{**first, "extra": [blank, blank]}]
    for row in table_rows(comparison):
        found = row["difference"]
        difference = {"text": found["value"], "small": found["interval"], "state": ""}
        state = row["verdict"] if row["significant"] else "unclear"
        verdict = {"text": row["verdict"], "small": found["p"], "state": state}
        rows.append({**row, "extra": [difference, verdict]})
    return rows


def _sample(comparison: Comparison, i: int) -> dict[str, Any]:
    score = _score_shown(comparison)
    numbers = slots([v.name for v in comparison.variants])
    return {
        "prompt": _line(comparison.variants[0].evaluated.samples[i].prompt),
        "cells": [
            {
                "variant": v.name,
                "slot": numbers[v.name],
                "response": _response(v, i),
                "label": describe(score).label if score else "",
                "score": v.evaluated.per_sample[score][i] if score else None,
            }
            for v in comparison.variants
        ],
    }


def _score_shown(comparison: Comparison) -> str | None:
    """The number beside each sample: the judge's where there is one."""
    known = scores_of({v.name: v.evaluated for v in comparison.variants})
    return "p_positive" if "p_positive" in known else next(iter(known), None)


def _response(variant: Variant, i: int) -> str:
    return _line(variant.evaluated.samples[i].response) or "(empty)"


def _score(variant: Variant, i: int) -> str:
    values = variant.evaluated.per_sample.get("p_positive")
    return "" if values is None or math.isnan(values[i]) else f" `{values[i]:.2f}`"


def _line(text: str) -> str:
    """One line of at most `LONGEST` characters."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1].rstrip() + "…"
