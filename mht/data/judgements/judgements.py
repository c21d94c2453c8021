"""What a reward model learns from: rated texts, texts of classes, or pairs of answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mht.data.examples.example import read_table, write_table
from mht.data.examples.split import unit_hash
from mht.data.judgements.kinds import Kind

COLUMNS: dict[Kind, tuple[str, ...]] = {
    "ratings": ("text", "rating"),
    "labels": ("text", "label"),
    "preferences": ("prompt", "chosen", "rejected", "turns"),
}


@dataclass(frozen=True)
class Judgements:
    """People's judgements of texts.

    Attributes:
        kind: of all of them.
        rows: "ratings" have ``text`` and ``rating`` in [-4, 4], "labels" ``text`` and ``label``.
            A row of "preferences" has ``prompt`` (as a `Sample` has it), ``chosen``, ``rejected``,
            and ``turns``, the earlier turns of a conversation as JSON.
    """

    kind: Kind
    rows: list[dict[str, Any]]


def write_judgements(path: str | Path, judgements: Judgements) -> None:
    """Write them as Parquet, with the columns of their kind."""
    import pyarrow as pa

    columns = COLUMNS[judgements.kind]
    types = {name: pa.float64() if name == "rating" else pa.string() for name in columns}
    write_table(path, judgements.rows, pa.schema(types))


def read_judgements(path: str | Path) -> Judgements:
    """The judgements of a file of `write_judgements`; their kind follows from its columns.

    Raises:
        DataError: the file is not there.
    """
    table = read_table(path)
    kind = next(kind for kind, names in COLUMNS.items() if set(names) == set(table.column_names))
    return Judgements(kind, table.to_pylist())


def set_apart(judgements: Judgements, share: float) -> tuple[Judgements, Judgements]:
    """The judgements without a share of them, and that share, for a judge that shares no text.

    A hash of the text decides, or of the question before a pair of answers. So the same text is
    always on the same side.

    Args:
        judgements: of one kind.
        share: about how much of them is set apart, in [0, 1).
    """
    sides: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for row in judgements.rows:
        # not the content key itself: by that the rows came into this split already
        digest = hashlib.sha256(f"set apart {_opening(row)}".encode()).hexdigest()
        sides[unit_hash(digest) < share].append(row)
    rest, apart = (Judgements(judgements.kind, rows) for rows in sides)
    return rest, apart


def _opening(row: Mapping[str, Any]) -> str:
    if "text" in row:
        return str(row["text"])
    turns = json.loads(row["turns"])
    return str(turns[0]["content"] if turns else row["prompt"])
