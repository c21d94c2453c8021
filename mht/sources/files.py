"""Local files: JSON, JSON Lines, CSV, Parquet and plain text."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mht.component import did_you_mean
from mht.errors import DataError
from mht.sources.base import OptionError, Source, source
from mht.sources.bundled import sha256_of
from mht.sources.table import Located, TableSource

csv.field_size_limit(2**31 - 1)  # long documents are ordinary here


def check_file(path: str) -> Path:
    """The path, when a file is there.

    Raises:
        OptionError: it is not; with the nearest name in its folder.
    """
    file = Path(path).expanduser()
    if file.is_file():
        return file
    if file.is_dir():
        raise OptionError("path", f"{path!r} is a folder: name a file in it")
    if not file.parent.is_dir():
        raise OptionError("path", f"no such file {path!r}: there is no folder {str(file.parent)!r}")
    siblings = sorted(p.name for p in file.parent.iterdir() if p.is_file())
    hint = did_you_mean(file.name, siblings)
    there = ", ".join(siblings[:10]) or "nothing"
    raise OptionError("path", f"no such file {path!r}{hint}. Its folder holds: {there}")


def read_text(path: str) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        DataError: the file is empty, or a byte of it is not UTF-8.
    """
    data = check_file(path).read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte, line = error.start, data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: byte {byte} (0x{data[byte]:02x}) is not UTF-8: save the file as UTF-8"
        ) from None
    if not text.strip():
        raise DataError(f"{path}: the file is empty")
    return text


def file_asset(path: str) -> dict[str, Any]:
    """The entry of ``assets.json`` for a local file, without where it lies."""
    file = check_file(path)
    return {
        "name": file.name,
        "version": "",
        "sha256": sha256_of(file),
        "licence": "yours to say",
        "source": "a local file",
    }


class FileSource(TableSource):
    """A local file with columns.

    Attributes:
        path: the file, from the project's root; DVC watches those in ``data/local/``.
    """

    path: str

    def place(self) -> str:
        """The file's path as it was given."""
        return self.path

    def asset(self) -> dict[str, Any]:
        """The entry of ``assets.json``."""
        return file_asset(self.path)


@source("json")
class JSON(FileSource):
    """A JSON file that holds a list of objects.

    Attributes:
        field: where the list lies when the file holds a mapping.
    """

    field: str | None = None

    def records(self) -> Iterator[Located]:
        """Each object with its row number, from 1."""
        for number, record in enumerate(self._list(), start=1):
            yield _located(f"{self.path}: row {number}", record)

    def _list(self) -> list[Any]:
        data = _loads(read_text(self.path), self.path)
        if isinstance(data, Mapping):
            if self.field not in data:
                keys = ", ".join(data)
                raise OptionError("field", f"{self.path} holds a mapping; name its list: {keys}")
            data = data[self.field]
        if not isinstance(data, list):
            kind = type(data).__name__
            raise DataError(f"{self.path}: should hold a list of objects, got {kind}")
        return data


@source("jsonl")
class JSONLines(FileSource):
    """A file with one JSON object a line."""

    def records(self) -> Iterator[Located]:
        """Each object with its file and line."""
        for number, line in enumerate(read_text(self.path).split("\n"), start=1):
            if line.strip():
                where = f"{self.path}:{number}"
                yield _located(where, _loads(line, self.path, number))


def _loads(text: str, path: str, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        hint = ""
        if line is None and error.msg == "Extra data":
            hint = " (one object a line? then the type is jsonl)"
        place = f"{path}:{line or error.lineno}: column {error.colno}"
        raise DataError(f"{place}: not JSON: {error.msg}{hint}") from None


def _located(where: str, record: Any) -> Located:
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: should be an object with named columns, got {record!r:.60}")
    return where, record


@source("csv")
class CSV(FileSource):
    r"""A CSV file with a header line.

    Attributes:
        delimiter: between the fields; "\t" for tab-separated files.
    """

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","

    def records(self) -> Iterator[Located]:
        """Each record with its file and the line it begins on."""
        text = read_text(self.path)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter, strict=True)
        try:
            header = self._header(next(reader))
            begins = reader.line_num + 1
            for fields in reader:
                if fields:
                    yield self._record(begins, header, fields)
                begins = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{self.path}:{reader.line_num}: not CSV: {error}") from None

    def _header(self, header: list[str]) -> list[str]:
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise DataError(f"{self.path}:1: the column {twice[0]!r} is there more than once")
        return header

    def _record(self, line: int, header: list[str], fields: list[str]) -> Located:
        where = f"{self.path}:{line}"
        if len(fields) != len(header):
            raise DataError(
                f"{where}: {len(fields)} fields where the header has {len(header)}: put a field "
                f"that holds {self.delimiter!r} in double quotes"
            )
        return where, dict(zip(header, fields, strict=True))


@source("parquet")
class Parquet(FileSource):
    """A Parquet file."""

    def records(self) -> Iterable[Located]:
        """Each record with its row number, from 1."""
        import pyarrow
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(check_file(self.path))
        except pyarrow.ArrowInvalid as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{self.path}: not a Parquet file: {reason}") from None
        rows = enumerate(table.to_pylist(), start=1)
        return [(f"{self.path}: row {number}", row) for number, row in rows]


@source("text")
class Text(Source):
    """A plain text file, cut into texts.

    Attributes:
        path: the file, from the project's root; DVC watches those in ``data/local/``.
        unit: what one text is: a line, a paragraph (between blank lines), or the file.
    """

    path: str
    unit: Literal["line", "paragraph", "file"] = "line"

    def rows(self) -> list[dict[str, Any]]:
        """``{"text"}`` for each unit that is not blank."""
        text = read_text(self.path).replace("\r\n", "\n")
        cut = {"line": r"\n", "paragraph": r"\n\s*\n", "file": r"\Z"}[self.unit]
        return [{"text": part.strip()} for part in re.split(cut, text) if part.strip()]

    def asset(self) -> dict[str, Any]:
        """The entry of ``assets.json``."""
        return file_asset(self.path)
