"""Local files: JSON, JSON Lines, CSV and plain text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from mht.core.errors import DataError
from mht.data.sources.base import OptionError, Source, asset_entry, source
from mht.data.sources.bundled import sha256_of
from mht.data.sources.reading import HEAD, check_file, check_once, lines_of, loads, read_text
from mht.data.sources.shown import listed, shown
from mht.data.sources.table import Located, TableSource

csv.field_size_limit(2**31 - 1)  # long documents are ordinary here


def file_asset(path: str) -> dict[str, Any]:
    """The entry of ``assets.json`` for a local file, without where it lies."""
    file = check_file(path)
    return asset_entry(file.name, "a local file", "yours to say", sha256=sha256_of(file))


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

    def records(self, *, head: bool = False) -> Iterator[Located]:
        """Each object with its row number, from 1."""
        for number, record in enumerate(self._list(), start=1):
            yield _located(f"{self.path}: row {number}", record)

    def _list(self) -> list[Any]:
        data = loads(read_text(self.path), self.path)
        if isinstance(data, Mapping):
            if self.field not in data:
                keys = listed(data)
                raise OptionError("field", f"{self.path} holds a mapping; name its list: {keys}")
            data = data[self.field]
        if not isinstance(data, list):
            kind = type(data).__name__
            raise DataError(f"{self.path}: should hold a list of objects, got {kind}")
        return data


@source("jsonl")
class JSONLines(FileSource):
    """A file with one JSON object a line."""

    def records(self, *, head: bool = False) -> Iterator[Located]:
        """Each object with its file and line."""
        for number, line in lines_of(read_text(self.path, head=head)):
            yield _located(f"{self.path}:{number}", loads(line, self.path, number))


def _located(where: str, record: Any) -> Located:
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: should be an object with named columns, got {shown(record)}")
    return where, record


@source("csv")
class CSV(FileSource):
    r"""A CSV file with a header line.

    Attributes:
        delimiter: between the fields; "\t" for tab-separated files.
    """

    delimiter: Annotated[str, Field(min_length=1, max_length=1, pattern=r'[^"\r\n]')] = ","

    def records(self, *, head: bool = False) -> Iterator[Located]:
        """Each record with its file and the line it begins on."""
        text = read_text(self.path, head=head)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter, strict=True)
        cut = head and check_file(self.path).stat().st_size > HEAD
        try:
            header = next(reader)
            check_once(header, f"{self.path}:1")
            begins = reader.line_num + 1
            for fields in reader:
                if fields:
                    yield self._record(begins, header, fields)
                begins = reader.line_num + 1
        except csv.Error as error:
            if cut and "unexpected end" in str(error):
                return  # a record that goes on behind the head
            raise DataError(f"{self.path}:{reader.line_num}: not CSV: {error}") from None

    def _record(self, line: int, header: list[str], fields: list[str]) -> Located:
        where = f"{self.path}:{line}"
        if len(fields) != len(header):
            raise DataError(
                f"{where}: {len(fields)} fields where the header has {len(header)}: put a field "
                f"that holds {self.delimiter!r} in double quotes"
            )
        return where, dict(zip(header, fields, strict=True))


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
