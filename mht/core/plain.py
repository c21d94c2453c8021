"""Plain data from people: YAML and JSON as they are read, and how much of it a setting may hold.

YAML is version 1.2: ``yes`` is a word and ``010`` is ten. Short texts that make endless data are
refused early: aliases of aliases, brackets in brackets, numbers of thousands of digits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, ScalarEvent

from mht.core.errors import SHOWN, ConfigError, shown

MOST_BYTES = 2**22
MOST_VALUES = 50_000  # an alias counts as all that it stands for
MOST_KEYS = 5_000  # of all mappings together
DEEPEST = 100
WHOLE_BITS = 63
NOTED = ("tag:yaml.org,2002:str",)  # the tags that may be written
DEEP = f"is nested more than {DEEPEST} levels deep"
MANY_KEYS = f"holds more than {MOST_KEYS:,} keys"
MANY = f"holds more than {MOST_VALUES:,} values, those of aliases included"


class _Constructor(SafeConstructor):
    """The safe constructor, with bounds for numbers and a line for what it can't read."""

    def construct_yaml_int(self, node: Any) -> int:
        """A whole number of at most 64 bits."""
        try:
            value = int(super().construct_yaml_int(node))
        except ValueError:  # no digit at all, or thousands of them
            raise _refused(node, "is no whole number that can be read") from None
        if value.bit_length() > WHOLE_BITS:
            raise _refused(node, f"is beyond 2**{WHOLE_BITS}: write a float, such as 1.0e+30")
        return value

    def construct_yaml_float(self, node: Any) -> float:
        """A float; infinity only where it is written so."""
        try:
            value = float(super().construct_yaml_float(node))
        except ValueError:
            raise _refused(node, "is no number that can be read") from None
        if math.isinf(value) and "inf" not in node.value.lower():
            raise _refused(node, "is too large for a float")
        return value

    def construct_yaml_timestamp(self, node: Any, values: Any = None) -> Any:
        """A date, as DVC reads it too."""
        try:
            return super().construct_yaml_timestamp(node, values)
        except ValueError:
            raise _refused(node, "is no date: put it in quotes") from None


_Constructor.add_constructor("tag:yaml.org,2002:int", _Constructor.construct_yaml_int)
_Constructor.add_constructor("tag:yaml.org,2002:float", _Constructor.construct_yaml_float)
_Constructor.add_constructor("tag:yaml.org,2002:timestamp", _Constructor.construct_yaml_timestamp)
_Constructor.add_constructor("tag:yaml.org,2002:value", _Constructor.construct_yaml_str)


def _refused(node: Any, what: str) -> ConstructorError:
    return ConstructorError(None, None, f"{shown(node.value)} {what}", node.start_mark)


def read_yaml(path: str | Path) -> Any:
    """The plain data of a YAML file.

    Raises:
        ConfigError: no such file, too large, not UTF-8, or not YAML; with the line.
    """
    return parse_yaml(read_text(path), str(path))


def read_text(path: str | Path) -> str:
    """The text of a settings file, without a byte order mark.

    Raises:
        ConfigError: no such file, too large, or not UTF-8.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            problem = f"is larger than {MOST_BYTES // 2**20} MiB: is it the right file?"
            raise ConfigError([problem], shown_path(path))
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(["no such file"], shown_path(path)) from None
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not UTF-8: save it as UTF-8"
        raise ConfigError([problem], shown_path(path)) from None
    except (OSError, ValueError) as error:  # a folder, no permission; a name with NUL
        problem = f"can't be read: {getattr(error, 'strerror', None) or error}"
        raise ConfigError([problem], shown_path(path)) from None


def shown_path(path: str | Path) -> str:
    """A path for a message: on one line, and not endless."""
    text = str(path)
    return text if text.isprintable() and len(text) <= 300 else shown(text)


def parse_yaml(text: str, source: str) -> Any:
    """The plain data of a YAML text.

    Raises:
        ConfigError: not YAML, or too much of it; with the line. ``source`` says of what.
    """
    try:
        _refuse_floods(YAML(typ="safe").parse(text))
        yaml = YAML(typ="safe")
        yaml.Constructor = _Constructor
        return yaml.load(text)
    except YAMLError as error:
        raise ConfigError([_located(error, text)], source) from None
    except UnicodeEncodeError as error:  # half of a pair of surrogates, which no file holds
        line = text.count("\n", 0, error.start) + 1
        raise ConfigError([f"line {line}: half a character, which is no text"], source) from None


def _located(error: YAMLError, text: str) -> str:
    mark, position = getattr(error, "problem_mark", None), getattr(error, "position", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    if isinstance(position, int):  # a character that no text has; counted in bytes
        line = text.encode()[:position].count(10) + 1
        where = f"line {line}: "
    what = " ".join((getattr(error, "problem", None) or str(error).splitlines()[0]).split())
    lines = text.splitlines()
    if mark and mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] == "\t":
        what = "a tab, where YAML takes blanks alone"
    return where + (what if len(what) <= 2 * SHOWN else f"{what[: 2 * SHOWN]}...")


def _refuse_floods(events: Iterable[Any]) -> None:
    """Hold a text's events to the bounds: depth, values with aliases written out, tags."""
    sizes: dict[str, int] = {}
    above: list[tuple[str | None, int]] = []  # the anchor and values so far of what is open
    size = 0
    for event in events:
        anchor = getattr(event, "anchor", None)
        if isinstance(event, AliasEvent):
            if anchor not in sizes:
                raise _flood(event, f"the alias {shown(anchor)} stands for nothing before it")
            size += sizes[anchor]
        elif isinstance(event, ScalarEvent):
            size += 1
            sizes |= {anchor: 1} if anchor else {}
        elif type(event).__name__.endswith(("SequenceStartEvent", "MappingStartEvent")):
            above.append((anchor, size))
            sizes.pop(anchor or "", None)  # until it is closed
            size = 1
        elif type(event).__name__.endswith(("SequenceEndEvent", "MappingEndEvent")):
            name, before = above.pop()
            sizes |= {name: size} if name else {}
            size += before
        if len(above) > DEEPEST:
            raise _flood(event, DEEP)
        if size > MOST_VALUES:
            raise _flood(event, MANY)
        if getattr(event, "tag", None) not in (None, *NOTED):
            raise _flood(event, f"leave out the tag {shown(str(event.tag))}")


def _flood(event: Any, what: str) -> ConstructorError:
    return ConstructorError(None, None, what, event.start_mark)


def parse_json(text: str, source: str) -> Any:
    """The plain data of a JSON text; a key twice in one object is refused.

    Raises:
        ConfigError: not JSON, or too much of it. ``source`` says of what.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ConfigError([f"{where}: {error.msg[:1].lower()}{error.msg[1:]}"], source) from None
    except RecursionError:
        raise ConfigError([DEEP], source) from None
    except ValueError as error:  # a key twice, a number of thousands of digits
        raise ConfigError([str(error).partition(";")[0]], source) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise ValueError(f"the key {shown(twice)} stands twice in one mapping")
    return found


def misfit(data: Any) -> tuple[str, str] | None:
    """Where plain data is too deep, too much, has too large a number or a date, and a sentence.

    None where it is none of that.

    What comes from Python may hold itself, which is too deep.
    """
    todo: list[tuple[str, Any, int]] = [("", data, 0)]
    count, keys = 0, 0
    while todo:
        path, value, depth = todo.pop()
        count += 1
        keys += len(value) if isinstance(value, Mapping) else 0
        if keys > MOST_KEYS:
            return "", MANY_KEYS
        if isinstance(value, int) and value.bit_length() > WHOLE_BITS:
            return path, f"{shown(value)} is beyond 2**{WHOLE_BITS}"
        if isinstance(value, date):
            return path, f"is read as a date: put it in quotes, got {value}"
        if isinstance(value, Mapping | list | tuple):
            if count + len(value) > MOST_VALUES:
                return "", MANY
            if depth >= DEEPEST:
                return path[:SHOWN], DEEP
            todo.extend((f"{path}{step}", inner, depth + 1) for step, inner in _inner(value))
        if count > MOST_VALUES:
            return "", MANY
    return None


def _inner(value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield from ((f"[{i}]", inner) for i, inner in enumerate(value))
        return
    for key, inner in value.items():
        yield f".{key if isinstance(key, str) and len(key) < 100 else shown(key)}", inner
        if not isinstance(key, str):
            yield "", key
