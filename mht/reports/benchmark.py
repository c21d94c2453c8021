"""The comparison of the variants: reading what was evaluated, differences, and every output file.

The variants answered the same prompts, so they are compared prompt by prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mht.core.component import did_you_mean
from mht.core.errors import ConfigError, DataError
from mht.core.outputs import write_bytes, write_text
from mht.evaluation.metrics import describe
from mht.evaluation.statistics import (
    UNCLEAR,
    Difference,
    difference_of,
    holm,
    verdict,
)
from mht.evaluation.summary import Evaluated, or_nan, read_samples, significant, write_json
from mht.reports.conclusion import OFF, guard_json, sentences
from mht.reports.guard import Bounds, Finding, check_judges, examine
from mht.reports.measured import measure
from mht.reports.wording import prompts_of

VARIANTS = ("base", "sft_only", "ppo_only", "hybrid")
SUBJECT = "hybrid"  # what differences are taken of
UNEVEN = 0.05  # optimiser steps may differ by this share before we warn

Summary = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Variant:
    """One way of training, evaluated.

    Attributes:
        name: one of `VARIANTS`.
        steps: optimiser steps that its weights have seen.
        summary: metric to mean, low, high.
        evaluated: its responses with their per-sample numbers.
    """

    name: str
    steps: int
    summary: Summary
    evaluated: Evaluated


@dataclass(frozen=True)
class Comparison:
    """The variants side by side.

    Attributes:
        variants: in order of `VARIANTS`.
        metrics: the chosen ones, for tables and plots.
        baseline: the variant that the hybrid is compared with.
        differences: metric to hybrid minus baseline, for all metrics that both have.
        adjusted: p-values of the chosen metrics, adjusted for their number.
        rows: positions of the samples to show.
        split: whose prompts were answered.
        findings: the guard's word on each variant that was trained on the reward.
        sentences: what the numbers say.
    """

    variants: list[Variant]
    metrics: list[str]
    baseline: str
    differences: dict[str, Difference]
    adjusted: dict[str, float]
    rows: list[int]
    split: str
    findings: list[Finding] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)

    @property
    def prompts(self) -> int:
        """On how many prompts the variants were evaluated."""
        return self.variants[0].evaluated.prompts

    @property
    def asked(self) -> str:
        """The same with their kind, for people."""
        return prompts_of(self.prompts, self.split, self.variants[0].evaluated.rounds)

    def __getitem__(self, name: str) -> Variant:
        """The variant of that name."""
        return next(v for v in self.variants if v.name == name)

    def verdict(self, metric: str) -> str:
        """How the hybrid stands against the baseline: better, worse, differs or unclear."""
        if metric not in self.adjusted:
            return UNCLEAR
        found, direction = self.differences[metric], describe(metric).direction
        return verdict(direction, found.difference, self.adjusted[metric])

    def uneven(self) -> str | None:
        """A warning where trained variants' optimiser steps differ too much, else None."""
        steps = {v.name: v.steps for v in self.variants if v.name != "base"}
        if max(steps.values()) <= (1 + UNEVEN) * min(steps.values()):
            return None
        shown = ", ".join(f"{name} {count}" for name, count in steps.items())
        return (
            f"the budgets differ by more than {UNEVEN:.0%}: {shown} optimiser steps. "
            "Change cycles or steps in ppo and baselines until they match."
        )


def compare(
    steps: Mapping[str, int],
    *,
    metrics: Sequence[str],
    samples: int = 8,
    split: str = "test",
    baseline: str = "sft_only",
    guard: Bounds = OFF,
    resamples: int = 2000,
    seed: int = 0,
    root: str | Path = ".",
) -> Comparison:
    """Read all variants and compare them.

    Args:
        steps: variant to its optimiser steps; its keys are the variants.
        metrics: those to show, in order; ``benchmark.metrics``.
        samples: how many prompts to show side by side, evenly spaced.
        split: whose prompts were answered; ``evaluate.split``.
        baseline: the variant that the hybrid is compared with.
        guard: what a sound gain keeps to; ``benchmark.guard``.
        resamples: of the intervals and tests of differences.
        seed: of the same.
        root: where ``reports/`` and ``metrics/`` are.

    Raises:
        DataError: a variant's file is missing or broken, or the prompts differ.
        ConfigError: an unknown metric; all of them.
    """
    variants = [read_variant(name, count, root) for name, count in steps.items()]
    _check_prompts(variants)
    _check_metrics(metrics, variants)
    by_name = {v.name: v for v in variants}
    differences = _differences(by_name[SUBJECT], by_name[baseline], resamples, seed)
    shown = [m for m in metrics if m in differences]
    adjusted = dict(zip(shown, holm([differences[m].p for m in shown]), strict=True))
    rows = evenly_spaced(variants[0].evaluated.prompts, samples)
    measured = measure(
        {v.name: [v.evaluated] for v in variants}, {v.name: v.summary for v in variants}
    )
    check_judges(guard, measured)
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    trained = [v.name for v in variants if v.name not in ("base", baseline)]
    examined = [examine(measured, name, baseline, guard, **options) for name in trained]
    findings = [finding for finding in examined if finding]
    said = sentences(measured, findings, steps, **options)
    return Comparison(
        variants, list(metrics), baseline, differences, adjusted, rows, split, findings, said
    )


def read_variant(name: str, steps: int, root: str | Path = ".") -> Variant:
    """Read what the evaluate stage wrote for a variant.

    Raises:
        DataError: a file is missing or broken; the message names it.
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
    samples = read_samples(Path(root, "reports/evaluate", name, "samples.jsonl"))
    numbers = {m: {key: or_nan(end) for key, end in of.items()} for m, of in summary.items()}
    return Variant(name, steps, numbers, samples)


def evenly_spaced(count: int, rows: int) -> list[int]:
    """Positions of ``rows`` out of ``count``, the middles of equal parts.

    >>> evenly_spaced(100, 4)
    [12, 37, 62, 87]
    """
    rows = min(rows, count)
    return [(2 * i + 1) * count // (2 * rows) for i in range(rows)]


def write_outputs(
    comparison: Comparison, *, root: str | Path = ".", warn: Callable[[str], Any] = print
) -> None:
    """Write metrics, differences, tables, plots and the report.

    Args:
        comparison: of the variants.
        root: where ``reports/``, ``metrics/`` and ``plots/`` are.
        warn: told where the budgets are uneven.
    """
    from mht.reports import report
    from mht.reports.figures import plots

    root = Path(root)
    folder = root / "reports/benchmark"
    write_json(root / "metrics/benchmark.json", {v.name: v.summary for v in comparison.variants})
    write_json(root / "metrics/benchmark_differences.json", _differences_json(comparison))
    write_text(root / "plots/benchmark.csv", report.csv_rows(comparison))
    write_text(folder / "table.md", report.markdown_table(comparison))
    write_text(folder / "samples.md", report.markdown_samples(comparison))
    write_json(folder / "guard.json", guard_json(comparison.findings))
    curves = plots.read_curves(root)
    figures = plots.figures(comparison, curves)
    for name, png in figures.items():
        write_bytes(folder / f"{name}.png", png)
    dark = plots.figures(comparison, curves, dark=True)
    write_text(folder / "report.html", report.html(comparison, figures, dark))
    if uneven := comparison.uneven():
        warn(uneven)


def flat(comparison: Comparison) -> dict[str, float]:
    """``<variant>/<metric>`` to its mean, and the differences, for tracking."""
    found = {
        f"{v.name}/{metric}": value["mean"]
        for v in comparison.variants
        for metric, value in v.summary.items()
    }
    return found | {
        f"{SUBJECT}_minus_{comparison.baseline}/{metric}": d.difference
        for metric, d in comparison.differences.items()
    }


def _differences_json(comparison: Comparison) -> dict[str, Any]:
    keys = ("difference", "difference_low", "difference_high", "p_value")
    rows = {
        metric: dict(zip(keys, map(significant, d), strict=True))
        for metric, d in comparison.differences.items()
    }
    return {f"{SUBJECT}_minus_{comparison.baseline}": rows}


def _check_prompts(variants: Sequence[Variant]) -> None:
    first = variants[0]
    for other in variants[1:]:
        if other.evaluated.ids != first.evaluated.ids:
            raise DataError(
                f"{first.name} and {other.name} were evaluated on different prompts: "
                "evaluate both again (dvc repro benchmark)"
            )


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


def _differences(a: Variant, b: Variant, resamples: int, seed: int) -> dict[str, Difference]:
    left, right = a.evaluated.units(), b.evaluated.units()
    found = {}
    for metric in left:
        if metric not in right:
            continue
        pairs = _complete(left[metric].columns, right[metric].columns)
        if pairs is None:
            continue
        statistic = left[metric].statistic
        found[metric] = difference_of(*pairs, statistic=statistic, resamples=resamples, seed=seed)
    return found


def _complete(a: list[list[float]], b: list[list[float]]) -> Any:
    """The columns of both, with the units where neither is NaN; None where no unit is left."""
    import numpy as np

    left, right = np.asarray(a, float), np.asarray(b, float)
    kept = ~(np.isnan(left).any(axis=0) | np.isnan(right).any(axis=0))
    return (left[:, kept], right[:, kept]) if kept.any() else None
