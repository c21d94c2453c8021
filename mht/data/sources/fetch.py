"""The rows of `data.source` and `data.labels`, written down as the sources give them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mht.config import DataConfig
from mht.core.errors import DataError
from mht.core.stable_files import read_jsonl, write_jsonl
from mht.data.judgements.kinds import KEYS, kind_of
from mht.data.sources import OptionError, Source
from mht.data.sources.cells import has_half
from mht.data.sources.shown import shown
from mht.data.sources.table import TableSource
from mht.data.text.clean import clean
from mht.data.text.turns import earlier_turns

Row = dict[str, Any]
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
    rows, labels = _read_both(config)
    assets = [config.source.asset()]
    if config.labels is not None and config.labels != config.source:
        assets.append(config.labels.asset())
    write_jsonl(folder / "examples.jsonl", rows)
    write_jsonl(folder / "labels.jsonl", labels)
    return assets


def _read_both(config: DataConfig) -> tuple[list[Row], list[Row]]:
    """The rows of ``data.source`` and of ``data.labels``; one read if they are the same."""
    note_unwatched(config.source, "data.source")
    rows, places = read_rows(config.source, "data.source")
    if config.labels is None:
        return rows, []
    labels = rows
    if config.labels != config.source:
        note_unwatched(config.labels, "data.labels")
        labels, places = read_rows(config.labels, "data.labels")
    check_judged(labels, places, config.labels)
    return rows, labels


def fetched_texts(folder: str | Path = "data/raw") -> Iterator[str]:
    """Every text of the fetched examples as training will see it, earlier turns included."""
    for row in read_jsonl(Path(folder, "examples.jsonl")):
        turns = earlier_turns(row.get("item", {}))
        found = [row.get(key, "") for key in ("text", "prompt", "target")]
        yield from map(clean, [*found, *(turn["content"] for turn in turns)])


def read_rows(source: Source, path: str, *, head: bool = False) -> tuple[list[Row], list[str]]:
    """The source's rows with their places; a wrong option is named by its place in params.yaml."""
    try:
        if isinstance(source, TableSource):
            table = source.read(head=head)
            rows, places = table.rows, table.places
            if table.columns.is_worth_telling:
                print(f"{path}: {table.columns.describe()}")
        else:
            rows = source.rows()
            _check_rows(rows, f"{path}: row {{}} of the source {source.type!r}")
            places = [f"row {n}" for n in range(1, len(rows) + 1)]
    except OptionError as error:
        raise error.below(path) from None
    if not rows:
        raise DataError(f"{path}: the source {source.type!r} gave no rows")
    return rows, places


def _check_rows(rows: Sequence[Row], place: str) -> None:
    """The rows of a plug-in hold texts that a UTF-8 file can hold."""
    for number, row in enumerate(rows, start=1):
        keys = ("text",) if "text" in row else ("prompt", "target")
        wrong = next((key for key in keys if not isinstance(row.get(key), str)), None)
        if wrong is not None:
            what = f"should hold a string under {wrong!r}, got {shown(row.get(wrong))}"
            raise DataError(f"{place.format(number)} {what}")
        if has_half(row):
            raise DataError(f"{place.format(number)} holds half of a surrogate pair")


def note_unwatched(source: Source, path: str) -> None:
    """Print a note if a source's file lies where DVC does not see it change."""
    file = getattr(source, "path", None)
    if isinstance(file, str) and WATCHED.resolve() not in Path(file).resolve().parents:
        print(
            f"note: {path}.path {file} lies outside {WATCHED}/, so DVC does not see it change: "
            "move it there, or run `dvc repro -f fetch` after a change"
        )


def check_judged(labels: Sequence[Row], places: Sequence[str], source: Source) -> None:
    """Every row holds a judgement of the same kind as the first one.

    Args:
        labels: the rows of ``data.labels``.
        places: of each row, such as "labels.csv:7".
        source: where they come from.

    Raises:
        DataError: a row holds none, or one of another kind.
    """
    kind = kind_of(labels[0])
    numbered = enumerate(labels)
    missing = next((n for n, row in numbered if kind is None or kind_of(row) != kind), None)
    if missing is not None:
        has = f"no {KEYS[kind]}" if kind else "no rating"
        raise DataError(
            f"data.labels: row {missing + 1} of the source {source.type!r} has {has} "
            f"({places[missing]}): set data.labels.columns.rating (or label, or chosen and "
            "rejected), or another data.labels or null"
        )
