"""A file of responses scored by a reward: the command `mht score`."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mht.core.component import build, did_you_mean
from mht.core.errors import DataError, RewardError, UserError
from mht.core.progress import track
from mht.data.sources.shown import listed, quoted, shown
from mht.data.text.sample import Sample
from mht.rewards import Reward
from mht.rewards.calls import as_text

Located = tuple[str, Mapping[str, Any]]  # where it stands, such as "answers.csv:7", and the record
READERS: dict[str, dict[str, Any]] = {
    ".jsonl": {"type": "jsonl"},
    ".csv": {"type": "csv"},
    ".tsv": {"type": "csv", "delimiter": "\t"},
    ".parquet": {"type": "parquet"},
    ".json": {"type": "json"},
    ".txt": {"type": "text"},
}


@dataclass(frozen=True)
class Columns:
    """The column of each role; None takes the column with the role's name, if it exists."""

    prompt: str | None = None
    response: str | None = None
    target: str | None = None


@dataclass(frozen=True)
class ScoredFile:
    """A file's samples with their scores.

    Attributes:
        samples: in the file's order.
        scores: the final score of each.
        nodes: the scores of each node of the reward tree; None where scoring failed.
        failed: the number of failed scorings of each node with an ``on_error``.
    """

    samples: list[Sample]
    scores: list[float]
    nodes: dict[str, list[float | None]]
    failed: dict[str, int] = field(default_factory=dict)


def read_samples(path: Path, columns: Columns, limit: int | None = None) -> list[Sample]:
    """The file's rows as samples; each keeps its whole row as ``item``.

    Raises:
        DataError: no such file or column, or a row that is not what it should be.
    """
    rows = _rows(path)[:limit]
    if not rows:
        raise DataError(f"{path}: holds no rows")
    there = list(dict.fromkeys(key for _, record in rows for key in record))
    names = {role: _column(path, role, getattr(columns, role), there) for role in _ROLES}
    return [_sample(where, record, names) for where, record in rows]


_ROLES = ("prompt", "response", "target")


def _rows(path: Path) -> list[Located]:
    from mht.data.sources import Source
    from mht.data.sources.base import OptionError
    from mht.data.sources.files import FileSource

    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"--data: {str(path)!r} should end in one of {', '.join(READERS)}")
    try:
        source = build(Source, {**reader, "path": str(path)})
        if isinstance(source, FileSource):
            return list(source.records())
        texts = [{"response": row["text"]} for row in source.rows()]
        return [(f"{path}: text {n}", row) for n, row in enumerate(texts, start=1)]
    except OptionError as error:
        raise DataError(f"--data: {error.message}") from None


def _column(path: Path, role: str, name: str | None, there: Sequence[str]) -> str | None:
    if name is None and (role in there or role != "response"):
        return role if role in there else None
    if name not in there:
        hint = did_you_mean(name or role, there)
        what = f"--{role} COLUMN says which it is" if name is None else f"--{role} asks for it"
        has = listed(there)
        raise DataError(f"{path}: no column {quoted(name or role)}{hint}. It has: {has}; {what}")
    return name


def _sample(where: str, record: Mapping[str, Any], names: Mapping[str, str | None]) -> Sample:
    texts = {}
    for role, name in names.items():
        value = record.get(name) if name else None
        if value is None and role != "response":
            value = ""
        try:
            texts[role] = as_text(value, "assistant" if role == "response" else None)
        except TypeError:
            raise DataError(
                f"{where}: column {quoted(name)} ({role}) should be a text or a chat, got "
                f"{shown(value)}"
            ) from None
    return Sample(**texts, item=dict(record))


def score(reward: Reward, samples: Sequence[Sample], batch_size: int) -> ScoredFile:
    """The samples' scores; a reward's state stays as it is, as in evaluation.

    Raises:
        UserError: a sample can't be scored, or a function of the user's fails.
    """
    count = len(samples)
    scores = [0.0] * count
    columns: dict[str, list[float | None]] = {}
    for start in track(range(0, count, batch_size), "score"):
        part = slice(start, start + batch_size)
        scored = _evaluate(reward, samples[part])
        scores[part] = scored.score
        for name, values in scored.components.items():
            columns.setdefault(name, [None] * count)[part] = values
    failed = {n: c for n, c in columns.items() if n.endswith(".failed")}
    return ScoredFile(
        samples=list(samples),
        scores=scores,
        nodes={n: c for n, c in columns.items() if n not in failed},
        failed={
            n.removesuffix(".failed"): sum(value == 1 for value in c) for n, c in failed.items()
        },
    )


def _evaluate(reward: Reward, samples: Sequence[Sample]) -> Any:
    try:
        return reward.evaluate(samples, update=False)
    except UserError:
        raise
    except Exception as error:  # most likely in a function of the user's: said like any mistake
        at = traceback.extract_tb(error.__traceback__)[-1]
        note = "; ".join(getattr(error, "__notes__", ["in the reward"]))
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise RewardError(f"{note}: {what}, at {at.filename}:{at.lineno}") from error
