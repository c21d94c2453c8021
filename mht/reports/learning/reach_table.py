"""The table of how soon each variant reaches a score, from the learning curves of all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mht.core.component import did_you_mean
from mht.core.errors import ConfigError
from mht.evaluation.summary import significant
from mht.reports.learning.reach import COSTS, Curve, Reached, reach_ratio, reached, times_to
from mht.reports.wording import ends


def reach_summary(
    curves: Mapping[str, Sequence[Curve]],
    *,
    metric: str,
    score: float,
    subject: str,
    resamples: int = 2000,
    seed: int = 0,
    setting: str = "benchmark.reach.metric",
) -> dict[str, Any]:
    """How soon each variant reaches a score, and each against the subject, paired by seed.

    Args:
        curves: variant to a curve for each seed; those that were never looked at are left out.
        metric: of the looks.
        score: to reach.
        subject: of the ratios.
        resamples: of the intervals.
        seed: of the same.
        setting: where the user has named the metric, for the error.

    Raises:
        ConfigError: no look has the metric.
    """
    looked = {name: own for name, own in curves.items() if all(own)}
    known = {key for own in looked.values() for curve in own for row in curve for key in row}
    if metric not in known:
        close = did_you_mean(metric, known)
        problem = f"no such metric {metric!r}{close}. There are {', '.join(sorted(known))}"
        raise ConfigError([f"{setting}: {problem}"])
    options = {"resamples": resamples, "seed": seed}
    times = {
        cost: {
            name: times_to(own, metric=metric, score=score, cost=cost)
            for name, own in looked.items()
        }
        for cost in COSTS
        if all(cost in row for own in looked.values() for curve in own for row in curve)
    }
    ratios = [
        {"a": name, "b": subject, "cost": cost, **_rounded(found._asdict())}
        for cost, of in times.items()
        for name in of
        if name != subject and subject in of
        if (found := reach_ratio(of[name], of[subject], **options))
    ]
    return {
        "metric": metric,
        "score": score,
        "subject": subject,
        "variants": {
            name: {cost: _figures(reached(of[name], **options)) for cost, of in times.items()}
            for name in looked
        },
        "ratios": ratios,
    }


def _figures(found: Reached) -> dict[str, float]:
    return _rounded({"share": found.share, "horizon": found.horizon, **found.time._asdict()})


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {key: significant(value) for key, value in values.items()}


def reach_sentence(summary: Mapping[str, Any]) -> str:
    """What a `reach_summary` shows."""
    after = summary.get("after")
    counted = f", counted from {after:g} optimiser steps on" if after else ""
    return (
        f"To {summary['metric']} {summary['score']:g} on validation prompts{counted}: restricted "
        f"means over seeds; ratios to {summary['subject']}, paired by seed, below 1 where sooner."
    )


def _ends(line: Mapping[str, Any]) -> str:
    return ends(line["low"], line["high"], "{:.2f}".format)


def reach_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """The table of a `reach_summary`; a ratio below 1 is sooner than the subject."""
    by = {(line["a"], line["cost"]): line for line in summary["ratios"]}
    costs = [c for c in COSTS if all(c in of for of in summary["variants"].values())]
    heads = [text for cost in costs for text in (f"{COSTS[cost]} to it", "ratio")]
    rows = [["", "seeds that reach it", *heads], ["---", *["---:"] * (1 + len(heads))]]
    for name, of in summary["variants"].items():
        cells = [f"{of['optimizer_steps']['share']:.0%}"]
        for cost in costs:
            own, line = of[cost], by.get((name, cost))
            more = "" if own["share"] == 1 else "at least "
            time = f"{more}{own['mean']:,.4g} {ends(own['low'], own['high'], '{:,.4g}'.format)}"
            cells.append(time if own["horizon"] else "-")  # of what it never spends
            ratio = f"{line['ratio']:.2f} {_ends(line)}" if line else "-"
            cells.append(ratio)
        rows.append([name, *cells])
    return rows
