"""The rows of `data.source` and `data.labels`, written down as the sources give them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mht.data.clean import clean
from mht.data.kinds import KEYS, kind_of
from mht.data.records import read_jsonl, write_jsonl
from mht.errors import DataError
from mht.sources import OptionError, Source

if TYPE_CHECKING:
    from mht.config import DataConfig

WATCHED = Path("data/local")


def fetch_rows(config: DataConfig, folder: str | Path = "data/raw") -> list[dict[str, Any]]:
    """Write ``examples.jsonl`` and ``labels.jsonl``; a source named twice is read once.

    Args:
        config: the section ``data``.
        folder: where.

    Returns:
        The sources' entries of ``assets.json``.

    Raises:
        DataError: a source's data are not there or not right; or the labels hold no judgements.
    """
    folder = Path(folder)
    rows = read_rows(config.source, "data.source")
    assets = [config.source.asset()]
    labels: list[dict[str, Any]] = []
    if config.labels == config.source:
        labels = rows
    elif config.labels is not None:
        labels = read_rows(config.labels, "data.labels")
        assets.append(config.labels.asset())
    _check_judged(labels, config)
    write_jsonl(folder / "examples.jsonl", rows)
    write_jsonl(folder / "labels.jsonl", labels)
    return assets


def fetched_texts(folder: str | Path = "data/raw") -> Iterator[str]:
    """Every text of the fetched examples as training will see it, earlier turns included."""
    for row in read_jsonl(Path(folder, "examples.jsonl")):
        turns = row.get("item", {}).get("turns", [])
        found = [row.get(key, "") for key in ("text", "prompt", "target")]
        yield from map(clean, [*found, *(turn["content"] for turn in turns)])


def read_rows(source: Source, path: str) -> list[dict[str, Any]]:
    """The source's rows; a wrong option is named by its place in params.yaml."""
    _note_unwatched(source, path)
    try:
        rows = source.rows()
    except OptionError as error:
        raise error.below(path) from None
    if not rows:
        raise DataError(f"{path}: the source {source.type!r} gave no rows")
    return rows


def _note_unwatched(source: Source, path: str) -> None:
    file = getattr(source, "path", None)
    if isinstance(file, str) and WATCHED.resolve() not in Path(file).resolve().parents:
        print(
            f"note: {path}.path {file} lies outside {WATCHED}/, so DVC does not see it change: "
            "move it there, or run `dvc repro -f fetch` after a change"
        )


def _check_judged(labels: list[dict[str, Any]], config: DataConfig) -> None:
    """Every row holds a judgement of the same kind as the first one."""
    kind = kind_of(labels[0]) if labels else None
    numbered = enumerate(labels, start=1)
    missing = next((n for n, row in numbered if kind is None or kind_of(row) != kind), None)
    if missing is not None:
        source = config.labels.type if config.labels else ""
        has = f"no {KEYS[kind]}" if kind else "no rating"
        raise DataError(
            f"data.labels: row {missing} of the source {source!r} has {has}: set "
            "data.labels.columns.rating to the column that has it (or label, or chosen and "
            "rejected), or data.labels to another source or null"
        )
