"""The comparison of the variants: differences, verdicts, guard and conclusion.

The variants answered the same prompts, so they are compared prompt by prompt, and seed by seed.
One training seed is the case of a single seed: its intervals are over prompts alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mht.core.component import did_you_mean
from mht.core.errors import ConfigError
from mht.evaluation.over_seeds import SeedDifference, per_seed, seeds_difference, seeds_interval
from mht.evaluation.statistics import holm
from mht.evaluation.summary import significant
from mht.reports.conclusion import OFF, sentences
from mht.reports.guard import Bounds, Finding, check_judges, examine
from mht.reports.learning.reach import Curve, since
from mht.reports.learning.reach_table import reach_summary
from mht.reports.measured import Measured, level, measure
from mht.reports.read import Results, check_prompts, read_project
from mht.reports.records import Comparison, Entry, Line, Summary, Variant, stages_of

DRAWS = 100  # for each difference: with fewer, no p-value of one seed survives Holm's adjustment
Options = Mapping[str, int]
Differences = dict[str, dict[str, SeedDifference]]


def compare(
    entries: Sequence[Entry],
    *,
    seeds: Sequence[int] = (0,),
    root: str | Path = ".",
    **options: Any,
) -> Comparison:
    """Read all variants and compare them.

    Args:
        entries: the table of variants, in order.
        seeds: the training seeds; the files of the first stand where those of one seed do.
        root: where ``reports/``, ``metrics/`` and ``plots/`` are.
        **options: of `compared`.

    Raises:
        DataError: a variant's file is missing or broken, or the prompts differ.
        ConfigError: an unknown metric; all of them.
    """
    return compared(read_project(entries, seeds, root), **options)


def compared(
    results: Results,
    *,
    metrics: Sequence[str],
    subject: str = "hybrid",
    baseline: str = "sft_only",
    samples: int = 8,
    split: str = "test",
    guard: Bounds = OFF,
    reach: Mapping[str, Any] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """The comparison of variants that have been read.

    Args:
        results: what was left of them.
        metrics: those to show, in order; ``benchmark.metrics``.
        subject: the variant that is compared with the others.
        baseline: the variant whose difference to the subject stands in the table.
        samples: how many prompts to show side by side, evenly spaced.
        split: whose prompts were answered; ``evaluate.split``.
        guard: what a sound gain keeps to; ``benchmark.guard``.
        reach: ``benchmark.reach``: metric, score and after; without a score it is left out.
        resamples: of the intervals and tests of differences.
        seed: of the same.

    Raises:
        DataError: the prompts differ.
        ConfigError: an unknown metric; all of them.
    """
    entries = results.entries
    options: dict[str, int] = {"resamples": resamples, "seed": seed}
    variants, measured = _variants(results, options)
    _check_metrics(metrics, variants)
    check_judges(guard, measured)
    others = [e.name for e in entries if e.name != subject and (e.trained or e.name == baseline)]
    asked = {other: measured if other == baseline else metrics for other in others}
    draws = {"resamples": draws_for(len(metrics) * len(others), resamples), "seed": seed}
    differences = {
        other: _differences({m: measured[m] for m in own if m in measured}, subject, other, draws)
        for other, own in asked.items()
    }
    findings = _findings(entries, measured, baseline, guard, options)
    budgets = {entry.name: float(entry.steps) for entry in entries}
    return Comparison(
        variants,
        list(metrics),
        subject,
        baseline,
        list(results.seeds),
        differences,
        lines_of(metrics, subject, differences),
        evenly_spaced(variants[0].evaluated.prompts, samples),
        split,
        findings,
        sentences(measured, findings, budgets, **options),
        results.curves,
        results.looks,
        results.costs,
        _over_seeds(measured, metrics, options),
        _reach(results.looks, reach or {}, subject, options),
        options,
    )


def draws_for(lines: int, resamples: int) -> int:
    """How many draws the test of each difference needs, of ``lines`` that are adjusted together."""
    return max(resamples, DRAWS * lines)


def evenly_spaced(count: int, rows: int) -> list[int]:
    """Positions of ``rows`` out of ``count``, the middles of equal parts.

    >>> evenly_spaced(100, 4)
    [12, 37, 62, 87]
    """
    rows = min(rows, count)
    return [(2 * i + 1) * count // (2 * rows) for i in range(rows)]


def _variants(results: Results, options: Options) -> tuple[list[Variant], dict[str, Measured]]:
    """The variants with their summaries, and the values that the summaries rest on."""
    runs, known = results.runs, results.known
    check_prompts(runs)
    measured = measure(runs, known)
    return [
        Variant(e, runs[e.name], known.get(e.name) or _summary(measured, e.name, options))
        for e in results.entries
    ], measured


def _summary(measured: Mapping[str, Measured], name: str, options: Options) -> Summary:
    """Every metric of a variant over seeds and prompts, 6 significant digits."""
    found = {m: level(own, name, **options) for m, own in measured.items() if name in own.of}
    return {m: {k: significant(v) for k, v in own._asdict().items()} for m, own in found.items()}


def _check_metrics(metrics: Sequence[str], variants: Sequence[Variant]) -> None:
    known = sorted({metric for v in variants for metric in v.summary})
    problems = [
        f"benchmark.metrics[{i}]: no such metric {name!r}{did_you_mean(name, known)}. "
        f"Available: {', '.join(known)}"
        for i, name in enumerate(metrics)
        if name not in known
    ]
    if not metrics:
        problems = [f"benchmark.metrics: is empty, name at least one of {', '.join(known)}"]
    if problems:
        raise ConfigError(problems, "params.yaml")


def _differences(
    measured: Mapping[str, Measured], a: str, b: str, options: Options
) -> dict[str, SeedDifference]:
    return {
        metric: seeds_difference(own.of[a], own.of[b], statistic=own.statistic, **options)
        for metric, own in measured.items()
        if {a, b} <= own.of.keys()
    }


def lines_of(metrics: Sequence[str], subject: str, differences: Differences) -> list[Line]:
    """The chosen metrics against each other variant, all of them adjusted together."""
    asked = [
        (metric, other) for metric in metrics for other in differences
        if metric in differences[other]
    ]  # fmt: skip
    adjusted = holm([differences[other][metric].p for metric, other in asked])
    return [
        Line(metric, subject, other, differences[other][metric], p)
        for (metric, other), p in zip(asked, adjusted, strict=True)
    ]


def _findings(
    entries: Sequence[Entry],
    measured: Mapping[str, Measured],
    baseline: str,
    guard: Bounds,
    options: Options,
) -> list[Finding]:
    from_base = [e.name for e in entries if "sft" not in stages_of(e, entries)]
    examined = [
        examine(measured, entry.name, baseline, guard, from_base=from_base, **options)
        for entry in entries
        if entry.trained and entry.name != baseline
    ]
    return [finding for finding in examined if finding]


def _over_seeds(
    measured: Mapping[str, Measured], metrics: Sequence[str], options: Options
) -> dict[str, dict[str, Any]]:
    return {
        metric: {
            name: _figures(values, measured[metric].statistic, options)
            for name, values in measured[metric].of.items()
        }
        for metric in metrics
        if metric in measured
    }


def _figures(values: Any, statistic: str, options: Options) -> dict[str, Any]:
    middle = seeds_interval(values, statistic=statistic, average="iqm", **options)
    return {
        "iqm": significant(middle.mean),
        "iqm_low": significant(middle.low),
        "iqm_high": significant(middle.high),
        "per_seed": [significant(v) for v in per_seed(values, statistic)],
    }


def _reach(
    looks: Mapping[str, Sequence[Curve]], reach: Mapping[str, Any], subject: str, options: Options
) -> dict[str, Any] | None:
    if reach.get("score") is None:
        return None
    after = reach.get("after", 0)
    looks = {name: own for name, own in looks.items() if all(own)}
    try:
        if after:
            looks = {name: [since(curve, after) for curve in own] for name, own in looks.items()}
    except ValueError as error:
        raise ConfigError([f"benchmark.reach.after: {error}"], "params.yaml") from None
    wanted: dict[str, Any] = {"subject": subject, **options}
    found = reach_summary(looks, metric=reach["metric"], score=reach["score"], **wanted)
    return {**found, "after": after}
