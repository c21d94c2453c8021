"""Numbers, intervals and Markdown as people read them."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mht.evaluation.statistics import Difference, Interval

ROUNDING = 1e-5  # of a float32 sum over a response


def number(value: float) -> str:
    """A number as people read it: about three digits that matter; what is only rounding is 0.

    >>> [number(x) for x in (0.8614, 17.62, 3.456, 1234.5, 0.00012, 0.0, -9.5e-07)]
    ['0.861', '17.6', '3.46', '1234', '0.00012', '0.000', '0.000']
    """
    value = 0.0 if abs(value) < ROUNDING else value
    size = abs(value)
    if 0 < size < 0.001:
        return f"{value:.2g}"
    return f"{value:.{3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0}f}"


def ends(low: float | None, high: float | None, show: Callable[[float], str] = number) -> str:
    """An interval, or that there are too few values for one.

    >>> ends(0.4, 0.6), ends(math.nan, math.nan)
    ('[0.400, 0.600]', '(too few for an interval)')
    """
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return "(too few for an interval)"
    return f"[{show(low)}, {show(high)}]"


def cell(value: Mapping[str, Any] | None) -> dict[str, str]:
    """A value of a page's table: ``mean``, and ``low`` with ``high`` or with nothing."""
    if value is None:
        return {"mean": "-", "low": "", "high": ""}
    low, high = value["low"], value["high"]
    if ends(low, high).startswith("("):
        return {"mean": number(value["mean"]), "low": "too few for an interval", "high": ""}
    return {"mean": number(value["mean"]), "low": number(low), "high": number(high)}


def prompts_of(count: int, split: str, rounds: int = 1) -> str:
    """The number of prompts with their split, and the responses to each where there are several.

    >>> [prompts_of(64, "test"), prompts_of(64, "validation", 4)]
    ['64 unseen prompts', '64 validation prompts (4 responses each)']
    """
    each = f" ({rounds} responses each)" if rounds > 1 else ""
    return f"{count} {'unseen' if split == 'test' else split} prompts{each}"


def signed(value: float) -> str:
    """The number with its sign, + included."""
    return ("+" if value > 0 else "") + number(value)


def percent(value: float) -> str:
    """A share with its sign, as a percentage.

    >>> [percent(x) for x in (0.0256, -0.5, 0.0, 12.345)]
    ['+2.6%', '-50.0%', '0.0%', '+1234%']
    """
    text = f"{100 * value:.{0 if abs(value) >= 10 else 1}f}%"
    return text.removeprefix("-") if text in ("-0.0%", "0.0%") else ("+" * (value > 0)) + text


def p_text(p: float) -> str:
    """``p = 0.012``, or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def interval(found: Interval | Mapping[str, float]) -> str:
    """``0.5 [0.4, 0.6]``."""
    values = found._asdict() if isinstance(found, Interval) else found
    return f"{number(values['mean'])} {ends(values['low'], values['high'])}"


def gained(found: Difference) -> str:
    """``+0.2 [0.1, 0.3], p = 0.012``."""
    return f"{signed(found.difference)} {ends(found.low, found.high)}, {p_text(found.p)}"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``.

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table."""
    safe = html.escape(text, quote=False)
    for mark in "\\`*_[]|~#":
        safe = safe.replace(mark, "\\" + mark)
    return safe


def pipes(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; the second row is its rule."""
    return [f"| {' | '.join(row)} |" for row in rows]
