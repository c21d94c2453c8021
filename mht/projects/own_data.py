"""Data of the user's own in a project: what kind they are, and how the model will read them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mht.config import DataConfig
from mht.config.overlays.overlay import apply_experiment, apply_values
from mht.core.component import build
from mht.core.errors import DataError
from mht.data.examples.tokenize import cut_row
from mht.data.judgements.kinds import kind_of
from mht.data.sources.fetch import read_rows
from mht.data.sources.table import TableSource
from mht.data.text.clean import clean
from mht.projects.commands import run

LOCAL = Path("data/local")
TYPES = {
    ".csv": {"type": "csv"},
    ".tsv": {"type": "csv", "delimiter": "\t"},
    ".json": {"type": "json"},
    ".jsonl": {"type": "jsonl"},
    ".ndjson": {"type": "jsonl"},
    ".parquet": {"type": "parquet"},
    ".txt": {"type": "text"},
    ".md": {"type": "text", "unit": "paragraph"},
}
SETTINGS = Path(__file__).with_name("settings")
JUDGED = ("ratings", "preferences")  # a reward model learns from these
SHOWN, WIDTH = 3, 72

Row = Mapping[str, Any]


@dataclass(frozen=True)
class OwnData:
    """Data that a project is made for.

    Attributes:
        source: the section `data.source` of the project's params.yaml.
        file: the local file; None for a data set of the hub.
        rows: the first ones, as the source gives them.
        kind: of `SETTINGS`, which ones fit.
    """

    source: Mapping[str, Any]
    file: Path | None
    rows: Sequence[Row]
    kind: str

    def take_in(self) -> Path | None:
        """Write the data and the settings that fit them into the project of the working folder.

        Returns:
            The file's copy in data/local; None for a data set of the hub.
        """
        apply_experiment(SETTINGS / f"{self.kind}.yaml")
        source = dict(self.source)
        apply_values(
            {"data.source": source, "data.labels": source if self.kind in JUDGED else None}
        )
        if self.file is None:
            return None
        copy = Path(shutil.copyfile(self.file, LOCAL / self.file.name))
        run(Path(), sys.executable, "-m", "dvc", "add", "-q", str(copy))
        return copy


def read_own(name: str, columns: Mapping[str, str]) -> OwnData:
    """The data under a name, read to the first rows at least.

    Args:
        name: a file whose suffix says its format, a folder in the hub's layout, or a hub name.
        columns: role to column, for those that are not guessed.

    Raises:
        UserError: they can't be read, or their columns can't be guessed.
    """
    here = _source(name, columns)
    rows, _ = read_rows(_built(here), "data.source", head=True)
    kind = str(kind_of(rows[0]))
    file = Path(here["path"]) if "path" in here else None
    source = {**here, "path": (LOCAL / file.name).as_posix()} if file else here
    return OwnData(source, file, rows[:SHOWN], kind if kind in JUDGED else "targets")


def columns_of(name: str) -> list[str]:
    """The columns of the first record of a table; empty where there are none."""
    source = _built(_source(name, {}))
    if not isinstance(source, TableSource):
        return []
    first = next(iter(source.records(head=True)), None)
    return [str(column) for column in first[1]] if first else []


def _source(name: str, columns: Mapping[str, str]) -> dict[str, Any]:
    file = Path(name).expanduser()
    named = {"columns": dict(columns)} if columns else {}
    if file.is_file():
        kind = TYPES.get(file.suffix.lower())
        if kind is None:
            raise DataError(f"{name}: the suffix should be one of {', '.join(TYPES)}")
        return {**kind, "path": str(file.absolute()), **named}
    if file.suffix.lower() in TYPES:
        raise DataError(f"{name}: there is no such file")
    return {"type": "hub", "name": str(file.resolve()) if file.is_dir() else name, **named}


def _built(source: Mapping[str, Any]) -> Any:
    settings = {"source": dict(source), "labels": None}
    return build(DataConfig, settings, path="data", source="--data").source


def shown_rows(rows: Sequence[Row], prompt_words: int, segmenter: str) -> Iterator[str]:
    """Lines that show rows as prompt and target, each cut off at the width of a terminal."""
    for number, row in enumerate(rows, start=1):
        tidy = {k: clean(v) if isinstance(v, str) else v for k, v in row.items()}
        cut = cut_row(tidy, prompt_words, segmenter)
        yield f"row {number}"
        turns = cut.messages if cut.messages and len(cut.messages) > 1 else []
        said = " | ".join(f"{turn['role']}: {turn['content']}" for turn in turns)
        yield f"  prompt  {_cut_off(said or cut.prompt)}"
        yield f"  target  {_cut_off(cut.target)}"
        yield from (f"  {key:7} {row[key]}" for key in ("rating", "label") if key in row)
        if "rejected" in row:
            yield f"  worse   {_cut_off(str(row['rejected']))}"


def _cut_off(text: str) -> str:
    shown = repr(text)[1:-1]
    return shown if len(shown) <= WIDTH else f"{shown[: WIDTH - 3]}..."
