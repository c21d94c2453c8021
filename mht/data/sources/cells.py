"""One cell of a table as what it is meant to be: plain data, a text, a rating, a label."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from mht.core.errors import DataError
from mht.data.sources.shown import quoted, shown

HALF = re.compile(r"[\ud800-\udfff]")
MISSING = ("NAType", "NaTType")  # what pandas writes for no value


def plain(value: Any) -> Any:
    """Arrays and tuples as lists, numbers of numpy as Python's, keys as texts; the rest as it is.

    >>> plain({"a": (1, [2.0])})
    {'a': [1, [2.0]]}
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if hasattr(value, "tolist"):  # numpy and torch, without importing them
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if type(value).__name__ in MISSING else value


def has_half(value: Any) -> bool:
    r"""Whether a text in plain data holds half of a surrogate pair, which no UTF-8 file can.

    >>> has_half(["fine", {"key": "half: \ud83d"}])
    True
    """
    if isinstance(value, str):
        return not value.isascii() and HALF.search(value) is not None
    if isinstance(value, Mapping):
        return any(has_half(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(has_half, value))


def is_missing(value: Any) -> bool:
    """Whether a cell holds no value: None or NaN, as pandas writes it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def read_text_cell(where: str, column: str, value: Any) -> str:
    """A text; "" where the cell is empty, which `prepare` drops and counts.

    Raises:
        DataError: it holds anything else.
    """
    if is_missing(value):
        return ""
    if not isinstance(value, str):
        kind = type(value).__name__
        raise DataError(
            f"{where}: column {quoted(column)} should be a string, got {shown(value)} ({kind})"
        )
    return value


def read_rating(where: str, column: str, value: Any, scale: tuple[float, float]) -> float:
    """A rating in [-4, 4] from one on the scale; true and false are no ratings.

    Raises:
        DataError: it is no number, or outside the scale.
    """
    low, high = scale
    try:
        number = _number(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"{where}: column {quoted(column)} (rating) should be a number, got "
            f"{shown(value)}: mend it, or set columns.rating to the column of ratings or to null"
        ) from None
    if not min(low, high) <= number <= max(low, high):  # also refuses nan
        raise DataError(
            f"{where}: rating {number:g} is outside rating_range [{low:g}, {high:g}]: set "
            "rating_range to the worst and the best rating in the data"
        )
    return -4 + 8 * (number - low) / (high - low)


def _number(value: Any) -> float:
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        raise ValueError("Python would take it for a number")
    return float(value)


def read_label(value: Any) -> str | None:
    """A class's name: a text or a whole number, 1.0 being 1; None where it is neither.

    >>> read_label(1), read_label(1.0), read_label(" joy "), read_label(0.5), read_label("")
    ('1', '1', 'joy', None, None)
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return (str(value).strip() or None) if isinstance(value, str | int) else None
