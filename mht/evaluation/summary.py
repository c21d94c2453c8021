"""From per-sample values to means with intervals, and the files that hold both.

Most metrics are means of per-sample values; repetition is one, made of the response. Distinct-n is
a mean over groups of responses, a perplexity is made of two per-sample columns. Where prompts have
several responses, samples are round after round over all prompts. A prompt then has their mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mht.core.errors import DataError
from mht.core.outputs import write_text
from mht.data.text.sample import Sample
from mht.evaluation.metrics import describe
from mht.evaluation.statistics import interval_of
from mht.evaluation.variety import distinct, repetition

RATIOS = {  # perplexity: (nats, tokens), both per sample
    "perplexity_human": ("nll_human", "tokens_human"),
    "perplexity_generated": ("nll_generated", "tokens_generated"),
}
DISTINCT = {f"distinct_{n}": n for n in (1, 2, 3)}
JOINER = "joiner"  # of a row whose prompt and texts do not show what stands between them
TEXTS = ("id", "prompt", "target", "response")


class Evaluated(NamedTuple):
    """What samples.jsonl holds.

    Attributes:
        ids: the examples' ids, in order; round after round where prompts have several responses.
        samples: the texts.
        per_sample: metric or column name to a value per sample; NaN where there is none.
    """

    ids: list[str]
    samples: list[Sample]
    per_sample: dict[str, list[float]]

    @property
    def rounds(self) -> int:
        """How many responses each prompt has."""
        prompts = self.ids.index(self.ids[0], 1) if self.ids[0] in self.ids[1:] else len(self.ids)
        rounds, rest = divmod(len(self.ids), prompts)
        return 1 if rest or self.ids != self.ids[:prompts] * rounds else rounds

    @property
    def prompts(self) -> int:
        """How many prompts were answered: the samples of the first round."""
        return len(self.ids) // self.rounds

    def units(self) -> dict[str, Units]:
        """What each metric is computed from; see `units`."""
        return units(self.per_sample, self.samples, self.rounds)


class Units(NamedTuple):
    """One metric's columns of values per unit, and the statistic that makes a number of them."""

    columns: list[list[float]]
    statistic: str


def units(
    per_sample: Mapping[str, Sequence[float]], samples: Sequence[Sample], rounds: int = 1
) -> dict[str, Units]:
    """What each metric is computed from, keyed by metric and sorted.

    Plain metrics keep a value for every prompt, NaN included, so that two variants stay paired.

    Args:
        per_sample: metric or column name to a value per sample.
        samples: the texts, round after round.
        rounds: responses to a prompt. They are no units of their own, for what a prompt has
            in common they share: a unit's value is their mean.

    Raises:
        ValueError: a column is not as long as ``samples``, or the last round is not whole. Or a
            number is not finite; NaN is fine only in a metric that needs a target.
    """
    if not samples or len(samples) % rounds:
        raise ValueError(f"{len(samples)} samples are not {rounds} whole rounds over the prompts")
    size = len(samples) // rounds

    def averaged(values: Sequence[float]) -> list[float]:
        return list(values) if rounds == 1 else np.reshape(values, (rounds, -1)).mean(0).tolist()

    for name, values in per_sample.items():
        _check(name, values, len(samples))
    found: dict[str, Units] = {}
    raw = {column for pair in RATIOS.values() for column in pair}
    for name, values in per_sample.items():
        if name not in raw:
            found[name] = Units([averaged(values)], "mean")
    for name, (nats, tokens) in RATIOS.items():
        if nats in per_sample and any(per_sample[tokens]):
            columns = [averaged(per_sample[nats]), averaged(per_sample[tokens])]
            found[name] = Units(columns, "perplexity")
    responses = [sample.response for sample in samples]
    found["repetition"] = Units([averaged(repetition(responses))], "mean")
    parts = [responses[start : start + size] for start in range(0, len(responses), size)]
    for name, n in DISTINCT.items():
        by_group = [value for part in parts for value in distinct(part, n)]
        found[name] = Units([averaged(by_group)], "mean")
    return dict(sorted(found.items()))


def summarise(
    per_sample: Mapping[str, Sequence[float]],
    samples: Sequence[Sample],
    *,
    rounds: int = 1,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Every metric's mean with its bootstrap 95% interval, ready to be written as JSON.

    Args:
        per_sample: metric name to a value per sample. ``nll_<of>`` (summed nats) and
            ``tokens_<of>`` for "human" and "generated" become ``perplexity_<of>``, weighted by
            tokens; the others are averaged over the samples that have a value.
        samples: what was evaluated; distinct-n and repetition come from the responses.
        rounds: responses to a prompt; the samples are round after round.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        ``{metric: {"mean", "low", "high"}}``, keys sorted, 6 significant digits.

    Raises:
        ValueError: columns of the wrong length, or numbers that are not finite.
    """
    summary = {}
    for name, (columns, statistic) in units(per_sample, samples, rounds).items():
        known = [c for c in zip(*columns, strict=True) if not any(math.isnan(v) for v in c)]
        if known:
            made = interval_of(
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
        if (joiner := _told_joiner(sample)) is not None:
            row[JOINER] = joiner
        row |= {name: significant(v) for name, v in numbers.items() if not math.isnan(v)}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def read_samples(path: str | Path) -> Evaluated:
    """Read what `write_samples` wrote; a number that a row lacks is NaN.

    Raises:
        DataError: no such file, or a line that is no such row; with its number.
    """
    rows = [_row(path, n, line) for n, line in enumerate(_lines(path), start=1)]
    if not rows:
        raise DataError(f"{path}: the file is empty; run the evaluate stage again")
    names = sorted({name for row in rows for name in row} - {*TEXTS, JOINER})
    samples = [
        Sample(row["prompt"], row["response"], row["target"], joiner=row.get(JOINER))
        for row in rows
    ]
    per_sample = {name: [row.get(name, math.nan) for row in rows] for name in names}
    return Evaluated([row["id"] for row in rows], samples, per_sample)


def _told_joiner(sample: Sample) -> str | None:
    """The sample's joiner, where its texts do not show it."""
    shown = replace(sample, joiner=None).full == sample.full
    return None if shown else sample.joiner


def significant(value: float, digits: int = 6) -> float:
    """The value rounded to ``digits`` significant digits.

    >>> significant(0.123456789)
    0.123457
    """
    return float(f"{value:.{digits}g}")


def write_json(path: str | Path, data: Any) -> None:
    """Write data as JSON with sorted keys and a final newline; the folder is made.

    The ends of an interval over a single unit, which are NaN, become null.
    """
    text = json.dumps(
        plain_ends(data), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False
    )
    write_text(path, text + "\n")


def plain_ends(data: Any) -> Any:
    """The data with null for what is NaN under a key that ends in low or high.

    >>> plain_ends({"mean": 1.0, "low": math.nan, "high": 2.0})
    {'mean': 1.0, 'low': None, 'high': 2.0}
    """
    if isinstance(data, list | tuple):
        return [plain_ends(value) for value in data]
    if not isinstance(data, Mapping):
        return data
    return {
        key: None if str(key).endswith(("low", "high")) and value != value else plain_ends(value)
        for key, value in data.items()
    }


def or_nan(value: float | None) -> float:
    """A number of a JSON file; null, the end of an interval that there is not, is NaN."""
    return math.nan if value is None else float(value)


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
    wrong = [
        k
        for k, v in row.items()
        if not isinstance(v, str if k in (*TEXTS, JOINER) else int | float)
    ]
    if wrong:
        raise DataError(f"{path}:{number}: {wrong[0]} has the wrong type, got {row[wrong[0]]!r}")
    return row
