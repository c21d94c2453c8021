"""The benchmark as text: rows of tables, Markdown, and the CSV for `dvc plots`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from statistics import fmean
from typing import Any

from mht.evaluation.metrics import GROUP, describe
from mht.evaluation.summary import Evaluated
from mht.reports.conclusion import guard_rows
from mht.reports.figures.plots import shown_bands
from mht.reports.guard import TRAINED, Finding
from mht.reports.learning.curves import TOKENS
from mht.reports.learning.reach_table import reach_rows, reach_sentence
from mht.reports.records import Comparison, Line, Variant
from mht.reports.wording import cell, ends, markdown, number, p_text, pipes, signed

TRAINING = {  # file of `dvc plots` to column of the training curves
    "score": "ppo/score/mean",
    "kl_nats": "ppo/kl/k1_nats",
    "length_tokens": "ppo/response/length_tokens",
    "sft_loss": "sft/loss",
}
COSTS = {TOKENS: ("Sampled tokens", ",.0f"), "seconds": ("Seconds of training", ",.4g")}
LONGEST = 240  # characters of a response that tables show
ABSENT = "-"
SCORES = ("vader", "kl_nats", "response_length")


def table_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The table's content, a row per chosen metric, for Markdown, HTML and the terminal."""
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
    names = comparison.names
    head = ["metric", *names, difference_head(comparison), "verdict"]
    lines = [head, ["---", *["---:"] * (len(names) + 1), "---"]]
    for label, texts in cost_rows(comparison):
        lines.append([label[0].lower() + label[1:], *texts, "", ""])
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
         *warnings(comparison), *guard_table(comparison.findings), *_wins(comparison),
         *_reach(comparison), *notes, ""]
    )  # fmt: skip


def cost_rows(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """What the variants spent: a label, and a text for each; means over seeds."""
    rows = [("Optimiser steps", [str(v.steps) for v in comparison.variants])]
    costs = [comparison.costs.get(name, {}) for name in comparison.names]
    for key, (label, form) in COSTS.items():
        if all(key in own for own in costs):
            rows.append((label, [format(fmean(own[key]), form) for own in costs]))
    return rows


def wins_rows(comparison: Comparison) -> list[list[str]]:
    """Who wins on what: a head and a line for each metric and compared variant.

    Effect sizes over seeds need several.
    """
    several = len(comparison.seeds) > 1
    head = ["metric", "compared", "difference", "p (Holm)"]
    head += ["Cohen's d", "Cliff's delta"] if several else []
    rows = [_win(line, several) for line in comparison.lines]
    return [[*head, "winner"], *rows] if rows else []


def _win(line: Line, several: bool) -> list[str]:
    found = line.found
    d = "-" if found.cohens_d is None else f"{found.cohens_d:.2f}"
    effects = [d, f"{found.cliffs_delta:+.2f}"] if several else []
    value = f"{signed(found.difference)} {ends(found.low, found.high)}"
    names = f"{line.a} - {line.b}"
    p = p_text(line.p_adjusted)
    return [describe(line.metric).label, names, value, p, *effects, line.winner or line.verdict]


def _wins(comparison: Comparison) -> list[str]:
    rows = wins_rows(comparison)
    rule = ["---", "---", *("---:" for _ in rows[0][3:]), "---"] if rows else []
    return ["Who wins on what:", "", *pipes([rows[0], rule, *rows[1:]]), ""] if rows else []


def _reach(comparison: Comparison) -> list[str]:
    found = comparison.reach
    return [reach_sentence(found), "", *pipes(reach_rows(found)), ""] if found else []


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
    names = comparison.names
    lines = [["prompt", *names], ["---"] * (len(names) + 1)]
    for i in comparison.rows:
        prompt = prompt_shown(comparison, i)
        cells = [markdown(response_shown(v, i)) + _score(v, i) for v in comparison.variants]
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


def training_rows(comparison: Comparison) -> dict[str, list[dict[str, Any]]]:
    """The training curves for `dvc plots`: a file for each, a row for each variant and step.

    Of several seeds the middle of the band that the figures show.
    """
    bands = shown_bands(comparison.curves)
    names = [name for name in ("sft", *comparison.names) if name in bands]
    return {
        file: [
            {"step": int(step), "variant": name, "value": value}
            for name in names
            if column in bands[name]
            for step, value in zip(*bands[name][column][:2], strict=True)
        ]
        or [{"step": "", "variant": "", "value": ""}]
        for file, column in TRAINING.items()
    }


def headline(comparison: Comparison) -> str:
    """One sentence: the first metric of the subject against the baseline's."""
    metric, baseline = comparison.metrics[0], comparison.baseline
    subject = comparison[comparison.subject].summary.get(metric)
    other = comparison[baseline].summary.get(metric)
    label = describe(metric).label
    if subject is None or other is None:
        return f"{comparison.asked}, {len(comparison.variants)} variants"
    text = (
        f"{label}: {comparison.subject} {number(subject['mean'])}, "
        f"{baseline} {number(other['mean'])}"
    )
    return f"{text} ({comparison.verdict(metric)})"


def difference_head(comparison: Comparison) -> str:
    """The head of the column of differences."""
    return f"{comparison.subject} - {comparison.baseline}"


def reading(comparison: Comparison) -> str:
    """How the table's numbers came about."""
    several = len(comparison.seeds) > 1
    intervals = "95% intervals over seeds and prompts" if several else "95% bootstrap intervals"
    paired = "seed and prompt" if several else "prompt"
    test = "p-value" if several else "permutation test's p-value"
    covers = (
        "The intervals cover the choice of prompts and of training seed."
        if several
        else "The intervals cover the choice of prompts, not the choice of training seed."
    )
    return (
        f"Means over {comparison.asked} with {intervals}; every "
        f"variant answered the same prompts. Distinct-n is counted in groups of {GROUP} responses. "
        f"Differences are paired by {paired}; the verdict is unclear unless the {test}, "
        "adjusted for the number of differences tested (Holm), is below 0.05. "
        "The guard asks each of its questions by itself, so its p-values are not adjusted. "
        + covers
    )


def choice(comparison: Comparison) -> str:
    """Which prompts are shown, and what the small number is."""
    shown = f"{len(comparison.rows)} of {comparison.prompts} prompts, evenly spaced, not picked."
    score = score_shown(comparison)
    return shown + (f" The number is {describe(score).label}." if score else "")


def samples_note(comparison: Comparison) -> str:
    """Whose responses are shown, where there are several seeds."""
    several = len(comparison.seeds) > 1
    return f"The responses are those of seed {comparison.seeds[0]}." if several else ""


def warnings(comparison: Comparison) -> list[str]:
    """The budget's warning as a Markdown paragraph, where there is one."""
    text = comparison.uneven()
    return [f"> Warning: {text}", ""] if text else []


def _with_ends(shown: Mapping[str, str]) -> str:
    if not shown["high"]:
        return shown["mean"] + (f" ({shown['low']})" if shown["low"] else "")
    return f"{shown['mean']} [{shown['low']}, {shown['high']}]"


def _difference(comparison: Comparison, metric: str) -> dict[str, str]:
    line = comparison.line(metric)
    if line is None:
        return {"text": ABSENT, "value": ABSENT, "interval": "", "p": ""}
    found, p = line.found, p_text(line.p_adjusted)
    interval = ends(found.low, found.high)
    value = signed(found.difference)
    return {"text": f"{value} {interval}, {p}", "value": value, "interval": interval, "p": p}


def scores_of(evaluated: Mapping[str, Evaluated]) -> list[str]:
    """Which per-sample numbers can be sorted by: those of rewards, judges, KL and length."""
    known = set.intersection(*(set(one.per_sample) for one in evaluated.values()))
    judges = sorted(name for name in known if name.startswith("judge/"))
    return [name for name in (*TRAINED, *judges, *SCORES) if name in known]


def score_shown(comparison: Comparison) -> str | None:
    """The number beside each sample: the judge's where there is one."""
    known = scores_of({v.name: v.evaluated for v in comparison.variants})
    return "p_positive" if "p_positive" in known else next(iter(known), None)


def prompt_shown(comparison: Comparison, i: int) -> str:
    """A prompt on one line."""
    return _line(comparison.variants[0].evaluated.samples[i].prompt)


def response_shown(variant: Variant, i: int) -> str:
    """A response on one line."""
    return _line(variant.evaluated.samples[i].response) or "(empty)"


def _score(variant: Variant, i: int) -> str:
    values = variant.evaluated.per_sample.get("p_positive")
    return "" if values is None or math.isnan(values[i]) else f" `{values[i]:.2f}`"


def _line(text: str) -> str:
    """One line of at most `LONGEST` characters."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1].rstrip() + "…"
