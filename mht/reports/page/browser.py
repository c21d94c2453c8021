"""The samples of every variant as the data that the report's script sorts and filters."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from mht.evaluation.metrics import describe
from mht.evaluation.summary import Evaluated, significant
from mht.reports.figures.palette import slots
from mht.reports.tables import scores_of

LONGEST = 2000  # characters of a text that the page keeps


def browser_data(evaluated: Mapping[str, Evaluated], baseline: str) -> str:
    """JSON for a ``<script>`` element: safe inside HTML, and the same data when it is parsed.

    Keys: ``variants`` (name and colour), ``baseline`` (its place there, or -1), ``metrics``, and
    ``rows``: prompt ``p``, target ``t``, responses ``r``, scores ``s`` (variant by metric).

    Args:
        evaluated: variant to its samples, all of the same prompts.
        baseline: the variant that is preselected to compare with.
    """
    names, first = list(evaluated), next(iter(evaluated.values()))
    metrics = scores_of(evaluated)
    numbers = slots(names)
    data = {
        "variants": [{"name": name, "slot": numbers[name]} for name in names],
        "baseline": names.index(baseline) if baseline in names else -1,
        "metrics": [_metric(name) for name in metrics],
        "rows": [
            {
                "p": _short(sample.prompt),
                "t": _short(sample.target),
                "r": [_short(evaluated[name].samples[i].response) for name in names],
                "s": [[_value(evaluated[n].per_sample[m][i]) for m in metrics] for n in names],
            }
            for i, sample in enumerate(first.samples)
        ],
    }
    return embedded(data)


def embedded(data: Any) -> str:
    r"""JSON that no HTML parser can leave: ``<``, ``>``, ``&`` and line separators are escaped.

    >>> print(embedded({"text": "</script>"}))
    {"text":"\u003c/script\u003e"}
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _metric(name: str) -> dict[str, Any]:
    found = describe(name)
    return {"label": found.label, "low": found.low, "high": found.high}


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"


def _value(value: float) -> float | None:
    return None if math.isnan(value) else significant(value, 4)
