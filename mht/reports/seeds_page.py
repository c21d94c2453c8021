"""The report of a benchmark over seeds: the page, its figures and the guard's word."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from mht.core.errors import DataError
from mht.evaluation.metrics import describe
from mht.evaluation.statistics import verdict
from mht.evaluation.summary import Evaluated, or_nan, read_samples, write_json
from mht.reports.conclusion import OFF, guard_json, sentences
from mht.reports.figures import bands, front, plots
from mht.reports.figures.palette import KNOWN, colours
from mht.reports.guard import FROM_BASE, Bounds, check_judges, examine, trained_metric
from mht.reports.measured import Measured, level, measure
from mht.reports.page.browser import browser_data
from mht.reports.page.render import figure_parts, guard_part, page
from mht.reports.report import guard_table
from mht.reports.wording import cell, ends, number, p_text, prompts_of, signed

SUMMARY, RESULT, SAMPLES = "summary.json", "result.json", "samples.jsonl"
FIRST_BASELINE = "sft_only"
TITLES = {
    "metrics": "Every metric, every variant",
    "frontier": "Reward against drift",
    "training": "While training",
}
CAPTIONS = {
    "metrics": "Bars are means over seeds, lines their 95% intervals over seeds and prompts.",
    "frontier": "A good variant earns reward without leaving the model it began with behind. Left: "
    "means on the {split} prompts with 95% intervals. Right: means over seeds on validation "
    "prompts, against the KL to the reference of each, from where PPO began.",
    "training": "Looks at the validation prompts; bands are 95% intervals over seeds.",
}


def seeds_page(
    folder: str | Path,
    *,
    guard: Bounds = OFF,
    baseline: str | None = None,
    resamples: int | None = None,
    seed: int | None = None,
) -> Path:
    """Write the report of a folder of `mht seeds`: page, Markdown, ``guard.json``, figures.

    Args:
        folder: with ``summary.json`` and ``seed_<n>/<variant>/``.
        guard: what a sound gain keeps to.
        baseline: the variant that the guard compares with; None takes sft_only where there is
            one, else the one that the summary's first comparison is against.
        resamples: of intervals and tests; None takes what `mht seeds` took.
        seed: of the same.

    Returns:
        The page.

    Raises:
        DataError: a file is missing or broken, or there is no such variant.
        ConfigError: a judge that was not measured.
    """
    results = _results(Path(folder))
    check_judges(guard, results.measured)
    against = _baseline(baseline, results)
    options = {
        "resamples": resamples or results.summary.get("resamples", 2000),
        "seed": results.summary.get("seed", 0) if seed is None else seed,
    }
    others = [name for name in results.names if name not in ("base", against)]
    examined = [
        examine(results.measured, name, against, guard, from_base=_from_base(results), **options)
        for name in others
    ]
    findings = [finding for finding in examined if finding]
    said = sentences(results.measured, findings, results.steps, **options)
    light, dark = (_figures(results, options, dark=dark) for dark in (False, True))
    for name, png in light.items():
        (results.folder / f"{name}.png").write_bytes(png)
    write_json(results.folder / "guard.json", guard_json(findings))
    lines = [*(f"- {escape(text, quote=False)}" for text in said), "", *guard_table(findings)]
    _write(results.folder / "report.md", "\n".join(lines))
    return _write(
        results.folder / "report.html",
        page(
            variants=results.names,
            sentences=said,
            data=browser_data({name: runs[0] for name, runs in results.runs.items()}, against),
            eyebrow=f"MHT benchmark, {results.folder.name}",
            headline=_headline(results.measured, results.names, options),
            reading=_reading(results),
            extra=[],
            rows=_rows(results),
            guard=guard_part(findings, results.names),
            comparisons=_comparisons(results.summary.get("comparisons", [])),
            figures=figure_parts(light, dark, TITLES, CAPTIONS, results.split),
            samples_note=f"The responses are those of seed {results.summary['seeds'][0]}.",
            choice="A script shows them.",
        ),
    )


class _Results(NamedTuple):
    """What `mht seeds` left in a folder.

    Attributes:
        folder: where.
        summary: of summary.json.
        names: the variants in the order of the page.
        steps: optimiser steps of each.
        runs: the samples of each, a run for each seed.
        looks: its learning curves, one for each seed.
        known: its figures as the summary has them.
        measured: every metric.
    """

    folder: Path
    summary: Mapping[str, Any]
    names: list[str]
    steps: dict[str, float]
    runs: dict[str, list[Evaluated]]
    looks: dict[str, list[list[dict[str, float]]]]
    known: dict[str, dict[str, Any]]
    measured: dict[str, Measured]

    @property
    def split(self) -> str:
        """Whose prompts the variants answered."""
        return str(self.summary.get("split", "test"))

    @property
    def asked(self) -> str:
        """How many prompts, of which kind."""
        rounds = self.summary.get("responses_per_prompt", 1)
        return prompts_of(self.summary["prompts"], self.split, rounds)


def _results(folder: Path) -> _Results:
    summary = _read(folder / SUMMARY)
    try:
        names, metrics = in_order(summary["budget"]), summary["metrics"]
        steps = {name: summary["budget"][name]["optimizer_steps"]["mean"] for name in names}
        places = {n: [folder / f"seed_{s}" / n for s in summary["seeds"]] for n in names}
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / SUMMARY}: lacks {error}; run `mht seeds` again") from None
    runs = {n: [read_samples(place / SAMPLES) for place in own] for n, own in places.items()}
    looks = {n: [_read(place / RESULT).get("curve", []) for place in own]
             for n, own in places.items()}  # fmt: skip
    known = {n: {m: _figures_of(of[n]) for m, of in metrics.items() if n in of} for n in names}
    return _Results(folder, summary, names, steps, runs, looks, known, measure(runs, known))


def _figures_of(found: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v if isinstance(v, list) else or_nan(v) for k, v in found.items()}


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def in_order(names: Iterable[str]) -> list[str]:
    """The known variants as the benchmark has them, then the others.

    >>> in_order(["hybrid", "memory", "base"])
    ['base', 'hybrid', 'memory']
    """
    return sorted(names, key=lambda name: (KNOWN.get(name, len(KNOWN)), name))


def _figures(results: _Results, options: Mapping[str, int], *, dark: bool) -> dict[str, bytes]:
    summary, measured = results.summary, results.measured
    paint = colours(results.names, dark=dark)
    title = f"Means over {len(summary['seeds'])} seeds on {results.asked}"
    drawn = {"metrics": plots.metric_bars(results.known, list(summary["metrics"]), title, paint)}
    reward = trained_metric(measured)
    if reward and "kl_nats" in measured:
        both = [n for n in measured[reward].of if n in measured["kl_nats"].of]
        points = {
            n: (level(measured["kl_nats"], n, **options)._asdict(),
                level(measured[reward], n, **options)._asdict())
            for n in both
        }  # fmt: skip
        drawn["frontier"] = front.figure(
            points, bands.ways(results.looks), describe(reward).label, paint, results.split
        )
    training = bands.figure(results.looks, paint)
    return drawn | ({"training": training} if training else {})


def _baseline(wanted: str | None, results: _Results) -> str:
    names, comparisons = results.names, results.summary.get("comparisons")
    if wanted is not None and wanted not in names:
        raise DataError(f"{results.folder}: no variant {wanted!r}; there are {', '.join(names)}")
    if wanted is not None:
        return wanted
    if FIRST_BASELINE not in names and comparisons:
        return str(comparisons[0]["b"])
    return FIRST_BASELINE if FIRST_BASELINE in names else names[0]


def _from_base(results: _Results) -> list[str]:
    """The variants that began with the base model, whatever their names."""
    known = results.summary.get("variants", {})
    own = {name: known.get(name, {}) for name in results.names}
    return [n for n, v in own.items() if v.get("from_base", v.get("recipe", n) in FROM_BASE)]


def _headline(
    measured: Mapping[str, Measured], names: Sequence[str], options: Mapping[str, int]
) -> str:
    reward = trained_metric(measured)
    if reward is None:
        return f"{len(names)} variants"
    means = {n: level(measured[reward], n, **options).mean for n in measured[reward].of}
    order = sorted(means, key=lambda n: -means[n])
    label = describe(reward).label
    return f"{label}: " + ", ".join(f"{name} {number(means[name])}" for name in order)


def _reading(results: _Results) -> str:
    seeds = len(results.summary["seeds"])
    over = (
        f"Means over {seeds} training seeds and {results.asked} with 95% intervals over both"
        if seeds > 1
        else f"Means over {results.asked} of one training seed with 95% intervals over prompts"
    )
    return (
        f"{over}; every variant answered the same prompts. p-values of the comparisons are "
        "adjusted for their number (Holm); the guard asks each of its questions by itself."
    )


def _rows(results: _Results) -> list[dict[str, Any]]:
    summary, names, known = results.summary, results.names, results.known
    costs = {
        "optimizer_steps": "Optimiser steps",
        "sampled_tokens": "Sampled tokens",
        "seconds": "Seconds of training",
    }
    rows = []
    for key, label in costs.items():
        cells = [{"mean": _cost(summary["budget"][n][key]["mean"]), "low": "", "high": ""}
                 for n in names if key in summary["budget"][n]]  # fmt: skip
        if len(cells) == len(names):
            rows.append({"label": label, "arrow": "", "meaning": "", "cells": cells, "extra": []})
    for metric in summary["metrics"]:
        entry = describe(metric)
        own = [known[n].get(metric) for n in names]
        cells = [cell(one) for one in own]
        rows.append({"label": entry.label, "arrow": entry.arrow, "meaning": entry.meaning,
                     "cells": cells, "extra": []})  # fmt: skip
    return rows


def _cost(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == round(value) else number(value)


def _comparisons(lines: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    if not lines:
        return []
    table = [["metric", "compared", "difference", "p (Holm)", "Cohen's d", "winner"]]
    for line in lines:
        effect = line.get("cohens_d")
        interval = ends(line["low"], line["high"])
        table.append(
            [
                describe(line["metric"]).label,
                f"{line['a']} - {line['b']}",
                f"{signed(line['difference'])} {interval}",
                p_text(line["p_adjusted"]),
                "-" if effect is None else f"{effect:.2f}",
                line["winner"] or verdict("neither", line["difference"], line["p_adjusted"]),
            ]
        )
    return table


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; `mht seeds` writes it") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: should hold a mapping")
    return found
