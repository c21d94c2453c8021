"""From per-sample values to means with intervals, and the files that hold both.

A metric is the mean of per-sample values (repetition is one, made of the response), the mean over
groups of responses (distinct-n), or a perplexity made of two per-sample columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mht.errors import DataError
from mht.evaluation.metrics import describe, distinct, repetition
from mht.evaluation.statistics import bootstrap
from mht.types import Sample

RATIOS = {  # perplexity: (nats, tokens), both per sample
    "perplexity_human": ("nll_human", "tokens_human"),
    "perplexity_generated": ("nll_generated", "tokens_generated"),
}
DISTINCT = {f"distinct_{n}": n for n in (1, 2, 3)}
TEXTS = ("id", "prompt", "target", "response")


class Evaluated(NamedTuple):
    """What samples.jsonl holds.

    Attributes:
        ids: the examples' ids, in order.
        samples: the texts.
        per_sample: metric or column name to a value per sample; NaN where there is none.
    """

    ids: list[str]
    samples: list[Sample]
    per_sample: dict[str, list[float]]


class Units(NamedTuple):
    """One metric's columns of values per unit, and the statistic that makes a number of them."""

    columns: list[list[float]]
    statistic: str


def units(per_sample: Mapping[str, Sequence[float]], samples: Sequence[Sample]) -> dict[str, Units]:
    """What each metric is computed from, keyed by metric and sorted.

    Plain metrics keep a value for every sample, NaN included, so that two variants stay paired.

    Raises:
        ValueError: a column is not as long as ``samples`` or holds a number that is not finite
            (NaN is fine only in a metric that needs a target).
    """
    if not samples:
        raise ValueError("no samples to summarise")
    for name, values in per_sample.items():
        _check(name, values, len(samples))
    found: dict[str, Units] = {}
    raw = {column for pair in RATIOS.values() for column in pair}
    for name, values in per_sample.items():
        if name not in raw:
            found[name] = Units([list(values)], "mean")
    for name, (nats, tokens) in RATIOS.items():
        if nats in per_sample and any(per_sample[tokens]):
            found[name] = Units([list(per_sample[nats]), list(per_sample[tokens])], "perplexity")
    responses = [sample.response for sample in samples]
    found["repetition"] = Units([repetition(responses)], "mean")
    for name, n in DISTINCT.items():
        found[name] = Units([distinct(responses, n)], "mean")
    return dict(sorted(found.items()))


def summarise(
    per_sample: Mapping[str, Sequence[float]],
    samples: Sequence[Sample],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Every metric's mean with its bootstrap 95% interval, ready to be written as JSON.

    Args:
        per_sample: metric name to a value per sample. ``nll_<of>`` (summed nats) and
            ``tokens_<of>`` for "human" and "generated" become ``perplexity_<of>``, weighted by
            tokens; the others are averaged over the samples that have a value.
        samples: what was evaluated; distinct-n and repetition come from the responses.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        ``{metric: {"mean", "low", "high"}}``, keys sorted, 6 significant digits.

    Raises:
        ValueError: columns of the wrong length, or numbers that are not finite.
    """
    summary = {}
    for name, (columns, statistic) in units(per_sample, samples).items():
        known = [c for c in zip(*columns, strict=True) if not any(math.isnan(v) for v in c)]
        if known:
            made = bootstrap(
                *zip(*known, strict=True), statistic=statistic, resamples=resamples, seed=seed
            )
            summary[name] = {key: significant(value) for key, value in made._asdict().items()}
    return summary


def write_samples(
    path: str | Path,
    ids: Sequence[str],
    samples: Sequence[Sample],
    per_sample: Mapping[str, Sequence[float]],
) -> None:
    """Write samples.jsonl: a row per sample with its texts and its numbers.

    Args:
        path: the file; its folder is made.
        ids: the examples' ids.
        samples: the texts.
        per_sample: name to a value per sample; NaN is left out of the row.

    Raises:
        ValueError: lengths differ.
    """
    for name, values in per_sample.items():
        _check(name, values, len(samples))
    lines = []
    for i, (id_, sample) in enumerate(zip(ids, samples, strict=True)):
        row: dict[str, Any] = dict(
            zip(TEXTS, (id_, sample.prompt, sample.target, sample.response), strict=True)
        )
        numbers = {name: float(per_sample[name][i]) for name in sorted(per_sample)}
        row |= {name: significant(v) for name, v in numbers.items() if not math.isnan(v)}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(lines), encoding="utf-8", newline="\n")


def read_samples(path: str | Path) -> Evaluated:
    """Read what `write_samples` wrote; a number that a row lacks is NaN.

    Raises:
        DataError: no such file, or a line that is no such row; with its number.
    """
    rows = [_row(path, n, line) for n, line in enumerate(_lines(path), start=1)]
    if not rows:
        raise DataError(f"{path}: the file is empty; run the evaluate stage again")
    names = sorted({name for row in rows for name in row} - set(TEXTS))
    samples = [Sample(row["prompt"], row["response"], row["target"]) for row in rows]
    per_sample = {name: [row.get(name, math.nan) for row in rows] for name in names}
    return Evaluated([row["id"] for row in rows], samples, per_sample)


def significant(value: float, digits: int = 6) -> float:
    """The value rounded to so many significant digits.

    >>> significant(0.123456789)
    0.123457
    """
    return float(f"{value:.{digits}g}")


def write_json(path: str | Path, data: Any) -> None:
    """Write data as JSON with sorted keys and a final newline; the folder is made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8", newline="\n")


def _check(name: str, values: Sequence[float], count: int) -> None:
    if len(values) != count:
        raise ValueError(f"{name}: {len(values)} values for {count} samples")
    for value in values:
        if math.isinf(value) or (math.isnan(value) and not describe(name).needs_target):
            raise ValueError(f"{name}: {value} is not a finite number")


def _lines(path: str | Path) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run the evaluate stage first") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8") from None
    return text.rstrip("\n").split("\n") if text.strip() else []


def _row(path: str | Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{number}: not JSON: {error}") from None
    missing = [key for key in TEXTS if not isinstance(row, dict) or key not in row]
    if missing:
        raise DataError(f"{path}:{number}: lacks {', '.join(missing)}")
    wrong = [k for k, v in row.items() if not isinstance(v, str if k in TEXTS else int | float)]
    if wrong:
        raise DataError(f"{path}:{number}: {wrong[0]} has the wrong type, got {row[wrong[0]]!r}")
    return row
