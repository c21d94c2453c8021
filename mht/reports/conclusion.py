"""The conclusion in three sentences, and the guard's table, for page and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mht.evaluation.metrics import describe
from mht.evaluation.statistics import Difference, Interval
from mht.evaluation.summary import significant
from mht.reports.guard import KL_TO_START, Bounds, Check, Finding, Judge, trained_metric
from mht.reports.measured import Measured, difference, level
from mht.reports.wording import ends, gained, interval, listed, number, percent, signed

OFF = Bounds((), 0.05, None, None, None, None, None)  # every figure is shown, none is judged
CHECKED = {
    "response_length": "length",
    "distinct_2": "distinct-2",
    "repetition": "repetition",
    "ended_by_eos": "share ended by EOS",
    "perplexity_human": "perplexity on human text",
    "kl_nats": "KL to the base model",
    KL_TO_START: "KL to the SFT model",
}
MEANS = {"sound": "gain within all bounds", "gaming": "gaming", "no gain": "no gain"}


def sentences(
    measured: Mapping[str, Measured],
    findings: Sequence[Finding],
    budgets: Mapping[str, float],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> list[str]:
    """Who wins on the trained reward, whether independent judges agree, and at what cost.

    Args:
        measured: metric to values.
        findings: the guard's, one for each variant that is compared.
        budgets: variant to its optimiser steps.
        resamples: of the test between the best two.
        seed: of the same.

    Returns:
        Three sentences, or none where no reward was measured.
    """
    trained = trained_metric(measured)
    if trained is None or not findings:
        return []
    options = {"resamples": resamples, "seed": seed}
    return [
        _who_wins(measured[trained], trained, findings, options),
        _judges(findings),
        _cost(findings, budgets),
    ]


def _who_wins(
    rewards: Measured, name: str, findings: Sequence[Finding], options: Mapping[str, int]
) -> str:
    values = {v: level(rewards, v, **options) for v in rewards.of}
    order = sorted(values, key=lambda v: -values[v].mean)
    best, text = order[0], ""
    if len(order) > 1:
        second = order[1]
        lead = difference(rewards, best, second, **options)
        told = "above" if lead.p < OFF.p else "not clearly above"
        text = f", {told} {second} with {number(values[second].mean)} ({gained(lead)})"
    gains = listed([f"{f.variant} {gained(f.gain)}" for f in findings])
    label = describe(name).label
    label = "the trained reward" if label == "Reward" else f"{label}, the trained reward,"
    return (
        f"On {label} {best} is highest with {interval(values[best])}{text}; "
        f"against {findings[0].baseline}: {gains}."
    )


def _judges(findings: Sequence[Finding]) -> str:
    asked = {judge.metric: None for f in findings for judge in f.judges}
    rising = [f for f in findings if f.rises]
    if not asked:
        return "No judge that was not trained on was asked (benchmark.guard.judges)."
    if not rising:
        return "No variant gains beyond chance, so there is nothing for other judges to confirm."
    return "; ".join(_judge(metric, rising) for metric in asked) + "."


def _judge(metric: str, rising: Sequence[Finding]) -> str:
    label = describe(metric).label
    said = [(f.variant, j) for f in rising for j in f.judges if j.metric == metric]
    if all(judge.agrees is None for _, judge in said):
        return f"{label} says the same of every response, so it confirms nothing"
    parts = []
    for answer, verb in ((True, "agrees on"), (False, "does not agree on")):
        own = [f"{name} ({gained(j.found)})" for name, j in said if j.agrees is answer]
        if own:
            parts.append(f"{verb} {listed(own)}")
    return f"{label}, which nobody was trained on, {' and '.join(parts)}"


def _cost(findings: Sequence[Finding], budgets: Mapping[str, float]) -> str:
    parts = [_verdict(finding) for finding in findings if finding.rises]
    if not parts:
        parts = [f"no variant beats {findings[0].baseline}, so nothing is gamed"]
    named = {f.variant for f in findings} | {f.baseline for f in findings}
    steps = {round(n) for name, n in budgets.items() if name in named}
    budget = (
        f"all at {steps.pop()} optimiser steps"
        if len(steps) == 1
        else "at unequal budgets of "
        + listed([f"{round(n)} ({v})" for v, n in budgets.items() if v in named])
        + " optimiser steps"
    )
    return f"{'; '.join(parts)} ({budget})."


def _verdict(finding: Finding) -> str:
    """``hybrid wins by gaming: ...``, or that its gain is within the bounds."""
    if finding.verdict == "gaming":
        return f"{finding.variant} wins by gaming: {listed([_against(x) for x in finding.broken])}"
    shown = [f"{CHECKED[c.metric]} {value_text(c)}" for c in finding.checks if c.broken is False]
    if not shown:
        return f"{finding.variant}'s gain was not judged against bounds (benchmark.guard: null)"
    return f"{finding.variant}'s gain is within all bounds: {listed(shown)}"


def _against(broken: Check | Judge) -> str:
    if isinstance(broken, Judge):
        return f"{describe(broken.metric).label} does not rise ({gained(broken.found)})"
    sure = "" if broken.sure else ", not surely"
    return f"{CHECKED[broken.metric]} {value_text(broken)} (bound {bound_text(broken)}{sure})"


def value_text(check: Check) -> str:
    """A check's value with its interval, in its own unit."""
    show = {"share": percent, "rise": signed, "nats": number}[check.unit]
    value = check.value
    unit = " nats" if check.unit == "nats" else ""
    return f"{show(value.mean)}{unit} {ends(value.low, value.high, show)}"


def bound_text(check: Check) -> str:
    """A check's bound, or a dash."""
    if check.bound is None:
        return "-"
    if check.unit == "share":
        sign = {"response_length": "±", "distinct_2": "-"}.get(check.metric, "+")
        return f"{sign}{100 * check.bound:g}%"
    return ("+" if check.unit == "rise" else "") + f"{check.bound:g}"


def guard_rows(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The guard's table: what is looked at, its bound, and a cell for each finding.

    A cell has ``text`` and ``state``: "good", "bad" or "" where nothing is judged.
    """
    rows = [_row("Verdict", "", {f.variant: _verdict_cell(f) for f in findings}, findings)]
    gains = {f.variant: _cell(gained(f.gain), f.rises or None) for f in findings}
    rows.append(_row("Trained reward", "rises", gains, findings))
    for metric in dict.fromkeys(j.metric for f in findings for j in f.judges):
        said = {
            f.variant: _cell(gained(j.found), j.agrees if f.rises else None)
            for f in findings
            for j in f.judges
            if j.metric == metric
        }
        rows.append(_row(f"{describe(metric).label} (not trained on)", "rises too", said, findings))
    for metric in dict.fromkeys(c.metric for f in findings for c in f.checks):
        own = {f.variant: c for f in findings for c in f.checks if c.metric == metric}
        cells = {
            name: _cell(value_text(c), None if c.broken is None else not c.broken, c.note)
            for name, c in own.items()
        }
        label = CHECKED[metric][0].upper() + CHECKED[metric][1:]
        rows.append(_row(label, bound_text(next(iter(own.values()))), cells, findings))
    return rows


def guard_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings as plain data."""
    return [
        {
            "variant": f.variant,
            "baseline": f.baseline,
            "trained": f.trained,
            "verdict": f.verdict,
            "gain": _numbers(f.gain),
            "judges": [
                {"metric": j.metric, "agrees": j.agrees, **_numbers(j.found)} for j in f.judges
            ],
            "checks": [{**c._asdict(), "value": _numbers(c.value)} for c in f.checks],
        }
        for f in findings
    ]


def _numbers(found: Difference | Interval) -> dict[str, float]:
    return {key: significant(value) for key, value in found._asdict().items()}


def _verdict_cell(finding: Finding) -> dict[str, Any]:
    judged = finding.judges or any(check.broken is not None for check in finding.checks)
    if finding.rises and not judged:
        return _cell("gain, not judged", None)
    good = {"sound": True, "gaming": False}.get(finding.verdict)
    return _cell(MEANS[finding.verdict], good)


def _cell(text: str, good: bool | None, note: str = "") -> dict[str, Any]:
    return {"text": text, "state": {True: "good", False: "bad", None: ""}[good], "note": note}


def _row(
    label: str, bound: str, cells: Mapping[str, dict[str, Any]], findings: Sequence[Finding]
) -> dict[str, Any]:
    absent = _cell("-", None)
    return {
        "label": label,
        "bound": bound,
        "cells": [cells.get(f.variant, absent) for f in findings],
    }
