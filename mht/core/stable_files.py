"""Small files of the pipeline with stable bytes: sorted keys, 6 significant digits, no dates."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mht.core.errors import DataError
from mht.core.outputs import replaced, write_text


def write_json(path: str | Path, data: Any) -> None:
    """Write JSON with sorted keys and floats of 6 significant digits."""
    text = json.dumps(_rounded(data), sort_keys=True, indent=2, ensure_ascii=False)
    write_text(path, text + "\n")


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line; what JSON has no form for (dates...) as a string."""
    with replaced(path) as part, part.open("w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            line = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
            out.write(line + "\n")


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file that a stage wrote.

    Raises:
        DataError: it is not there.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: not there; run the stage fetch first (dvc repro fetch)") from None
    return [json.loads(line) for line in text.split("\n") if line]


def _rounded(data: Any) -> Any:
    if isinstance(data, float):
        return float(f"{data:.6g}")
    if isinstance(data, Mapping):
        return {key: _rounded(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_rounded(value) for value in data]
    return data


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same keys as a table; floats with 6 significant digits."""
    with replaced(path) as part, part.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(rows[0])
        table.writerows(_rounded(list(row.values())) for row in rows)
