"""How soon the variants of a finished benchmark over seeds reach a score: `mht reach`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mht.core.component import did_you_mean
from mht.core.errors import UserError
from mht.reports.over_seeds_report import read_curves, read_result
from mht.reports.reach import since
from mht.reports.reach_report import reach_summary


def reach_of(
    folder: str | Path,
    *,
    score: float,
    baseline: str | None = None,
    metric: str = "score",
    after: float = 0,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """How soon the variants of a finished benchmark reach a score.

    Args:
        folder: that `write_report` has written to.
        score: to reach.
        baseline: of the ratios; the benchmark's subject if None.
        metric: of the looks.
        after: costs are counted from the last look at or before so many optimiser steps.
        resamples: of the intervals.
        seed: of the same.

    Raises:
        DataError: the folder holds none, or a result is missing or broken.
        UserError: no such baseline, or no look that early or that late.
        ConfigError: a metric that there is not.
    """
    folder = Path(folder)
    summary = read_result(folder / "summary.json")
    curves = read_curves(folder, seeds=summary["seeds"], variants=summary["budget"])
    curves = {n: own for n, own in curves.items() if all(own)}  # the base model has no looks
    subject = baseline or summary["subject"]
    if subject not in curves:
        close = did_you_mean(subject, curves)
        raise UserError(
            f"--baseline: no learning curve of {subject!r}{close}. There are {', '.join(curves)}"
        )
    try:
        curves = {n: [since(curve, after) for curve in own] for n, own in curves.items()}
    except ValueError as error:
        raise UserError(f"--after: {error}") from None
    return reach_summary(
        curves,
        metric=metric,
        score=score,
        subject=subject,
        resamples=resamples,
        seed=seed,
        setting="--metric",
    )
