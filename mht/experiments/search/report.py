"""What a search has found: a table, pictures, and one page of both without network."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mht.config import TuneConfig
from mht.experiments.search.figures import draw_all
from mht.experiments.search.study import (
    EXPERIMENT,
    FIGURES,
    PRUNED_AT,
    REASON,
    TUNE,
    best,
    load_optuna,
    shown,
)

if TYPE_CHECKING:
    import optuna

FEWEST = 4  # trials from which importances say anything
TITLES = {
    "history": ("The search", "every trial's objective, and the best so far"),
    "curves": ("Every trial as it trained", "the objective after each cycle"),
    "importances": ("What mattered", "shares of the objective's variance (fANOVA)"),
    "parallel": ("Every trial's values", "a line per trial, the best ones last and darkest"),
}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Search {{ name }}</title>
<style>
body { margin:0; font:16px/1.55 system-ui, sans-serif; color:#1f2430; background:#fff }
main { max-width:1120px; margin:0 auto; padding:40px 24px 80px }
p { color:#5c6575; max-width:74ch } h2 { margin-top:2.4em }
.scroll { overflow-x:auto } img { max-width:100%; height:auto }
table { border-collapse:collapse; font-variant-numeric:tabular-nums }
th, td { padding:.4em .8em; text-align:right; border-bottom:1px solid #e3e6eb }
thead th { border-bottom:2px solid #1f2430 } td:last-child { text-align:left }
tr.best { font-weight:700; background:#e9f6f1 } tr.pruned, tr.failed { color:#8b93a1 }
</style></head><body><main>
<h1>Search {{ name }}</h1>
<p>{{ summary }}</p>
<p>All figures are of validation prompts; the test split was not read. The best of many trials is
flattered by chance: `dvc repro` with its values, and the test prompts, say what it is worth.</p>
{% for p in pictures %}<h2>{{ p.title }}</h2><p>{{ p.note }}</p>
<img alt="{{ p.title }}" src="data:image/png;base64,{{ p.data }}">{% endfor %}
<h2>Trials</h2>
<div class="scroll"><table><thead><tr>{% for h in head %}<th>{{ h }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr class="{{ row.outcome }}{% if row.best %} best{% endif %}">\
{% for c in row.cells %}<td>{{ c }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
</main></body></html>
"""


def write_report(study: optuna.Study, folder: Path, name: str) -> None:
    """Write ``trials.csv``, a PNG for each picture and ``report.html``."""
    from jinja2 import Environment

    folder.mkdir(parents=True, exist_ok=True)
    tune = TuneConfig.model_validate(study.user_attrs[TUNE])
    head, rows = table(study, tune)
    with (folder / "trials.csv").open("w", encoding="utf-8", newline="") as file:
        file.write(_csv([head, *(row["cells"] for row in rows)]))
    drawn = draw_all(study, tune, importances(study))
    for key in TITLES.keys() - drawn.keys():
        (folder / f"{key}.png").unlink(missing_ok=True)  # of an earlier report
    for key, png in drawn.items():
        (folder / f"{key}.png").write_bytes(png)
    pictures = [
        {"title": title, "note": note, "data": base64.b64encode(drawn[key]).decode("ascii")}
        for key, (title, note) in TITLES.items()
        if key in drawn
    ]
    template = Environment(autoescape=True).from_string(PAGE)
    text = template.render(
        name=name, summary=summary(study, name), pictures=pictures, head=head, rows=rows
    )
    (folder / "report.html").write_text(text, encoding="utf-8")


def table(study: optuna.Study, tune: TuneConfig) -> tuple[list[str], list[dict[str, Any]]]:
    """The head and a row for each trial that has ended, the best ones first."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    figures = sorted({key for t in trials for key in t.user_attrs.get(FIGURES, {})})
    sign = -1 if tune.direction == "maximize" else 1
    order = {"complete": 0, "pruned": 1, "failed": 2}

    def rank(t: Any) -> tuple[int, float, int]:
        value = 0.0 if t.value is None else sign * t.value
        return order[_outcome(t)], value, t.number

    head = ["trial", "outcome", "objective", *tune.space, *figures, "cycles", "experiment", "note"]
    top = best(study)
    return head, [
        {
            "outcome": _outcome(t),
            "best": top is not None and t.number == top.number,
            "cells": _cells(t, tune, figures),
        }
        for t in sorted(trials, key=rank)
    ]


def _cells(t: Any, tune: TuneConfig, figures: list[str]) -> list[str]:
    known = t.user_attrs.get(FIGURES, {})
    pruned = t.user_attrs.get(PRUNED_AT)
    note = t.user_attrs.get(REASON) or (f"pruned after cycle {pruned}" if pruned else "")
    return [
        str(t.number),
        _outcome(t),
        _text(t.value),
        *(_text(t.params.get(path, "")) for path in tune.space),
        *(_text(known.get(key)) for key in figures),
        str(max(t.intermediate_values, default="")),
        t.user_attrs.get(EXPERIMENT, ""),
        note,
    ]


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _outcome(t: Any) -> str:
    return {"COMPLETE": "complete", "PRUNED": "pruned"}.get(t.state.name, "failed")


def _csv(rows: list[list[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def importances(study: optuna.Study) -> dict[str, float]:
    """Share of the objective's variance by setting (Hutter et al. 2014); {} of too few trials."""
    optuna = load_optuna()
    states = [optuna.trial.TrialState.COMPLETE]
    done = study.get_trials(deepcopy=False, states=states)
    if len(done) < FEWEST or len({t.value for t in done}) == 1:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def summary(study: optuna.Study, name: str) -> str:
    """The outcome in a sentence or two."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    counts = {what: sum(_outcome(t) == what for t in trials) for what in ("pruned", "failed")}
    said = f"{len(trials)} trials, {counts['pruned']} of them pruned, {counts['failed']} failed."
    top = best(study)
    if top is None:
        return f"{name}: {said} None ran to its end."
    return f"{name}: {said} Best: trial {top.number} with {top.value:.4g} ({shown(top.params)})."
