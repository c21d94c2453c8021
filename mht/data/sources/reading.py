"""Local files as text and as JSON: whatever is wrong with one is one line with file and line."""

from __future__ import annotations

import codecs
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mht.core.component import did_you_mean
from mht.core.errors import DataError
from mht.data.sources.base import OptionError
from mht.data.sources.shown import quoted, shown

HEAD = 8_000_000  # bytes of a file that `mht check` reads
DEEP = 100  # levels of lists and mappings in one record
PACKED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def check_file(path: str) -> Path:
    """The path, when a file is there.

    Raises:
        OptionError: it is not; with the nearest name in its folder.
    """
    try:
        return _file(path)
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, no such ~user, a NUL
        reason = getattr(error, "strerror", None) or error
        raise OptionError("path", f"{shown(path)} can't be read: {reason}") from None


def _file(path: str) -> Path:
    file = Path(path).expanduser()
    if file.is_file():
        return file
    if file.is_dir():
        raise OptionError("path", f"{path!r} is a folder: name a file in it")
    if file.exists():
        raise OptionError("path", f"{path!r} is no ordinary file")
    if not file.parent.is_dir():
        raise OptionError("path", f"no such file {path!r}: there is no folder {str(file.parent)!r}")
    siblings = sorted(p.name for p in file.parent.iterdir() if p.is_file())
    hint = did_you_mean(file.name, siblings)
    there = ", ".join(siblings[:10]) or "nothing"
    raise OptionError("path", f"no such file {path!r}{hint}. Its folder holds: {there}")


def read_bytes(path: str, size: int = -1) -> bytes:
    """The first ``size`` bytes of a file; -1 reads all of it.

    Raises:
        OptionError: it is not there, or the system does not let it be read.
    """
    file = check_file(path)
    try:
        with file.open("rb") as opened:
            return opened.read(size)
    except OSError as error:
        raise OptionError("path", f"{path!r} can't be read: {error.strerror}") from None
    except MemoryError:
        raise OptionError("path", f"{path!r} does not fit into memory: split it") from None


def read_text(path: str, *, head: bool = False) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Args:
        path: the file.
        head: only the whole lines among the first 8 MB.

    Raises:
        DataError: the file is empty or packed, or a byte of it is not UTF-8 text.
    """
    data = read_bytes(path, HEAD if head else -1)
    if head and len(data) == HEAD:
        data = data[: data.rfind(b"\n") + 1] or data
    text = decode(data, path)
    if not text.strip():
        raise DataError(f"{path}: the file is empty")
    return text


def decode(data: bytes, path: str) -> str:
    r"""The text of UTF-8 bytes, with or without a byte order mark.

    Raises:
        DataError: they are no UTF-8 text; with the file's line.

    >>> decode(b"\xef\xbb\xbfcaf\xc3\xa9", "a.txt")
    'café'
    """
    packed = next((kind for magic, kind in PACKED.items() if data.startswith(magic)), None)
    if packed:
        raise DataError(f"{path}: is packed with {packed}: unpack it first")
    if data.startswith(b"PAR1"):
        raise DataError(f"{path}: is a Parquet file: set the type to parquet")
    if data.startswith(WIDE):
        raise DataError(f"{path}:1: is UTF-16: save the file as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # an offset counts from behind a byte order mark
        byte = error.start + len(data) - len(error.object)
        raise DataError(
            f"{_at(path, data, byte)} (0x{data[byte]:02x}) is not UTF-8: save the file as UTF-8"
        ) from None
    if "\0" in text:
        raise DataError(
            f"{_at(path, data, data.index(0))} is NUL: the file is UTF-16 or no text: save it as "
            "UTF-8 text"
        )
    return text


def _at(path: str, data: bytes, byte: int) -> str:
    line = data.count(b"\n", 0, byte) + 1
    return f"{path}:{line}: byte {byte}"


def check_once(names: Sequence[str], where: str) -> None:
    """Refuse a table with two columns of one name.

    Raises:
        DataError: there are two.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{where}: the column {quoted(min(twice))} is there more than once")


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    r"""Each line that is not blank with its number; a line ends with \n or \r\n alone.

    >>> list(lines_of("a\u2028b\r\n\nc\x0c"))
    [(1, 'a\u2028b'), (3, 'c\x0c')]
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def loads(text: str, path: str, line: int | None = None) -> Any:
    """The value of a JSON text.

    Args:
        text: the file's, or that of one line of it.
        path: the file, for messages.
        line: its line; None where the text is the whole file.

    Raises:
        DataError: it is not JSON, names a key twice, or is too deep or too long a number.
    """
    place = f"{path}:{line}" if line else path
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        hint = ""
        if line is None and error.msg == "Extra data":
            hint = " (one object a line? then the type is jsonl)"
        at = f"{path}:{line or error.lineno}: column {error.colno}"
        raise DataError(f"{at}: not JSON: {error.msg}{hint}") from None
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    except ValueError:  # the one that is left: Python reads no longer number
        digits = f"{sys.get_int_max_str_digits():,}"
        raise DataError(f"{place}: holds a whole number of more than {digits} digits") from None
    except RecursionError:
        raise DataError(f"{place}: lists or mappings are more than {DEEP} deep") from None
    if text.count("[") + text.count("{") > DEEP and _is_deep(found):
        raise DataError(f"{place}: lists or mappings are more than {DEEP} deep")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise DataError(f"an object has the key {shown(key)} more than once")
    return found


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEP + 1):
        lists = [v for v in level if isinstance(v, list)]
        mappings = [v for v in level if isinstance(v, Mapping)]
        level = [w for v in lists for w in v] + [w for v in mappings for w in v.values()]
        if not level:
            return False
    return True
