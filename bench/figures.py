"""The arithmetic of the bench: rates, ratios and their spread."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum.

    >>> spread([3.0, 1.0, 2.0])
    {'median': 2.0, 'min': 1.0, 'max': 3.0}
    """
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def rate(round_: Mapping[str, Any]) -> float:
    """Tokens per second of one round."""
    return float(round_["tokens"] / round_["seconds"])


def figures(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds, also of each phase where there are some, tokens per second, and the most memory."""
    found = {
        "seconds": spread([r["seconds"] for r in rounds]),
        "tokens_per_s": spread([rate(r) for r in rounds]),
        "peak_gb": round(max(r["peak_gb"] for r in rounds), 2),
    }
    phases = rounds[0].get("phases", {})
    if phases:
        found["phases"] = {p: spread([r["phases"][p] for r in rounds]) for p in phases}
    return found


def memory(results: Mapping[str, Any]) -> dict[str, Any]:
    """Peak memory of the rows that have it for both sides, theirs over ours."""
    found = {
        name: {
            "ratio": round(row["theirs"]["peak_gb"] / row["mht"]["peak_gb"], 2),
            "mht_gb": row["mht"]["peak_gb"],
            "theirs_gb": row["theirs"]["peak_gb"],
        }
        for name, row in results.items()
        if "peak_gb" in row.get("theirs", {})
    }
    ratios = [row["ratio"] for row in found.values()]
    return {"ratio": spread(ratios), "rows": found} if ratios else {}
