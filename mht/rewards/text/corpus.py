"""Texts of the user's own: a folder, a file or a list, read as passages that know their place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import regex

from mht.core.component import did_you_mean
from mht.core.errors import DataError
from mht.data.text.sentences import sentences
from mht.data.text.words import CLUSTER, UNSPACED

Unit = Literal["line", "paragraph", "file"]
SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
# two characters of a script without spaces are about a word; nothing is longer than 24 characters
WORD = regex.compile(rf"(?:{CLUSTER}){{1,2}}|(?:(?!{UNSPACED}|\s)\X){{1,24}}", regex.VERSION1)


class Passage(NamedTuple):
    """A piece of text and where it stands, such as ``facts.txt:12``."""

    text: str
    place: str


def passages(
    corpus: str | Sequence[str], unit: Unit = "paragraph", column: str = "text", words: int = 100
) -> Iterator[Passage]:
    """The passages of a corpus in order, none of them blank; files are read as they come up.

    Args:
        corpus: the texts themselves, a file, or a folder with files at any depth. Files are UTF-8:
            .txt and .md, .jsonl and .parquet with a column.
        unit: what one text of a .txt or .md file is; paragraphs stand between blank lines.
        column: of .jsonl and .parquet.
        words: the most words of a passage; longer texts are cut between sentences.

    Raises:
        DataError: no such file, not of that kind, not UTF-8, without the column, or not one text.
    """
    if isinstance(corpus, str):
        found = (text for file in files(corpus) for text in texts(file, unit, column))
    else:
        found = ((text, f"text {number}") for number, text in enumerate(corpus, start=1))
    empty = True
    for text, place in found:
        for part in pieces(text, words):
            empty = False
            yield Passage(part, place)
    if empty:
        raise DataError(f"{_shown(corpus)} is empty: put texts into it")


def digest(found: Iterable[Passage]) -> str:
    """A name for the texts of these passages: the same texts in the same order, the same name."""
    content = hashlib.sha256()
    for passage in found:
        data = passage.text.encode("utf-8", "replace")
        content.update(b"%d:" % len(data) + data)
    return content.hexdigest()


def pieces(text: str, words: int) -> list[str]:
    """The text in pieces of whole sentences of at most ``words``; a longer sentence is cut.

    >>> pieces("One two. Three four five. Six.", 4)
    ['One two.', 'Three four five. Six.']
    """
    made: list[str] = []
    room = 0
    for sentence in sentences(text):
        for part in _cut(sentence, words):
            count = len(WORD.findall(part))
            if count <= room:
                made[-1] += " " + part
            else:
                made.append(part)
                room = words
            room -= count
    return made


def _cut(sentence: str, words: int) -> list[str]:
    places = list(WORD.finditer(sentence))
    groups = (places[i : i + words] for i in range(0, len(places), words))
    return [sentence[group[0].start() : group[-1].end()] for group in groups]


def _shown(corpus: str | Sequence[str]) -> str:
    return repr(corpus) if isinstance(corpus, str) else "the list"


def files(corpus: str) -> list[Path]:
    """The file of this path, or the folder's files of the known kinds, by name.

    Raises:
        DataError: there is none.
    """
    path = Path(corpus).expanduser()
    if path.is_dir():
        inside = (p for p in path.rglob("*") if not p.name.startswith("."))
        found = sorted(p for p in inside if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise DataError(f"the folder {corpus!r} holds no {', '.join(SUFFIXES)} file")
        return found
    if not path.is_file():
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"no such file or folder {corpus!r}{did_you_mean(path.name, near)}")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{corpus!r} should be a {', '.join(SUFFIXES)} file, or a folder of them")
    return [path]


def texts(file: Path, unit: Unit, column: str) -> Iterator[tuple[str, str]]:
    """Each text of a file as it stands, with its place; see `passages`."""
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _parquet(file, column)
    return _jsonl(file, column) if suffix == ".jsonl" else _plain(file, unit)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise DataError(f"{file}:{number}: is not UTF-8: save the file as UTF-8") from None
            yield number, text.rstrip("\r\n")


def _plain(file: Path, unit: Unit) -> Iterator[tuple[str, str]]:
    held: list[str] = []
    first = 1
    for number, line in _lines(file):
        if held and unit != "file" and (unit == "line" or not line.strip()):
            yield "\n".join(held), f"{file}:{first}"
            held = []
        if line.strip():
            first = first if held else number
            held.append(line)
    if held:
        yield "\n".join(held), f"{file}:{first}"


def _jsonl(file: Path, column: str) -> Iterator[tuple[str, str]]:
    for number, line in _lines(file):
        if line.strip():
            place = f"{file}:{number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{place}: not JSON: {error.msg}") from None
            yield _text_of(record, column, place), place


def _parquet(file: Path, column: str) -> Iterator[tuple[str, str]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        known = table.schema_arrow.names
        rows = table.iter_batches(columns=[column] if column in known else known)
        for number, record in enumerate((r for b in rows for r in b.to_pylist()), start=1):
            place = f"{file}: row {number}"
            yield _text_of(record, column, place), place
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{file}: not a Parquet file: {str(error).splitlines()[0]}") from None


def _text_of(record: Any, column: str, place: str) -> str:
    if not isinstance(record, dict):
        raise DataError(f"{place}: should be an object with named columns, got {record!r:.60}")
    if column not in record:
        there = f"{did_you_mean(column, record)}. There are: {', '.join(record)}"
        raise DataError(f"{place}: no column {column!r}{there}")
    value = record[column]
    if not isinstance(value, str):
        raise DataError(f"{place}: column {column!r} should be a string, got {value!r:.60}")
    return value
