"""Values and names of other people's data in messages: one line, never long."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from itertools import islice

VALUE, NAME, NAMES = 80, 40, 20

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = VALUE
_short.maxlevel = 3
_name = reprlib.Repr()
_name.maxstring = NAME


def shown(value: object) -> str:
    """A value as a message shows it, at most 80 characters.

    >>> shown("a" * 500) == "'" + "a" * 37 + "..." + "a" * 38 + "'"
    True
    """
    return _short.repr(value)[:VALUE]


def quoted(name: object) -> str:
    """A column's name in quotes, at most 40 characters."""
    return _name.repr(str(name))


def listed(names: Iterable[object]) -> str:
    r"""Names, the first 20 of them and how many more there are.

    >>> print(listed(["a", "b\n"]))
    a, 'b\n'
    """
    every = iter(names)
    text = ", ".join(map(_bare, islice(every, NAMES)))
    more = sum(1 for _ in every)
    return f"{text} and {more:,} more" if more else text


def _bare(name: object) -> str:
    text = str(name)
    return text if len(text) <= NAME and text.isprintable() else quoted(text)
