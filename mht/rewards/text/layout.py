"""A reward of form: format_accuracy."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import regex
from pydantic import JsonValue, model_validator

from mht.core.component import refuse
from mht.core.errors import MissingPackage, ModelError
from mht.data.text.sample import Sample
from mht.data.text.words import nfc
from mht.rewards.base import UNIT, Positive, Range, TextReward, reward
from mht.rewards.text.surface import Pattern

ITEM = re.compile(r"[ \t]*(\d{1,9})[.)][ \t]+\S")
OPTIONS = {
    "numbered_list": {"min", "max"},
    "paragraphs": {"min", "max"},
    "json": {"json_schema"},
    "regex": {"pattern"},
}


@reward("format_accuracy")
class FormatAccuracy(TextReward):
    """How well the text keeps to a format, in [0, 1]; white space around it does not count.

    "numbered_list": items are lines that begin with ``1.``, ``2.``... or ``1)``, ``2)``..., and may
    go on in indented lines. Blank lines do not count. The score is a product: the share of lines
    in the list, the share of items with the next number, the score of their count.

    "paragraphs": the score of the count of blocks between blank lines. A count n scores 1 from
    `min` to `max`, ``n / min`` below and ``max / n`` above.

    "json": 1 where the text is one JSON value (no NaN, no code fence) that fits `json_schema`. It
    is ``1 / (1 + n)`` where the text breaks the schema in n places, and 0 where it is no JSON or
    nested too deep to be checked.

    "regex": 1 where `pattern` matches the whole text, else 0. An empty text gets 0, unless the
    pattern matches it.

    Attributes:
        format: "numbered_list", "paragraphs", "json" or "regex".
        min: fewest items or paragraphs with the full score.
        max: most of them; null for no limit.
        json_schema: a JSON Schema as a mapping, or the path of a JSON file with one; null takes
            any JSON. References to anything outside the schema are not followed.
        pattern: a Python regular expression as the package regex reads it, for "regex".
        graded: false gives 1 where the format is kept throughout, else 0.
    """

    family: ClassVar[str] = "surface"
    needs: ClassVar[str] = "jsonschema, for a json_schema"
    score_range: ClassVar[Range] = UNIT
    example: ClassVar[Mapping[str, Any] | None] = {"format": "numbered_list"}

    format: Literal["numbered_list", "paragraphs", "json", "regex"]
    min: Positive = 1
    max: Positive | None = None
    json_schema: dict[str, JsonValue] | str | None = None
    pattern: Pattern | None = None
    graded: bool = True

    @model_validator(mode="after")
    def _options_fit_the_format(self) -> FormatAccuracy:
        given = self.model_fields_set & set().union(*OPTIONS.values())
        stray = sorted(given - OPTIONS[self.format])
        problems = [(key, f"is of no use with format: {self.format}") for key in stray]
        if self.max is not None and self.min > self.max:
            problems.append(("max", f"must not be below min, got min={self.min} max={self.max}"))
        if self.format == "regex" and self.pattern is None:
            problems.append(("pattern", "is required with format: regex"))
        if self.format == "json" and self.json_schema is not None:
            try:
                _validator(self._schema())
            except (ValueError, ModelError) as error:
                problems.append(("json_schema", str(error)))
        refuse(problems)
        return self

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The score of each text."""
        kinds = {
            "numbered_list": self._list,
            "paragraphs": self._paragraphs,
            "json": self._json,
            "regex": self._regex,
        }
        scores = [kinds[self.format](text.strip()) for text in self.texts(samples)]
        return scores if self.graded else [float(score == 1.0) for score in scores]

    def _list(self, text: str) -> float:
        numbers, lines, inside = list_items(text)
        if not numbers:
            return 0.0
        in_order = sum(number == i for i, number in enumerate(numbers, 1))
        return inside / lines * (in_order / len(numbers)) * self._count(len(numbers))

    def _paragraphs(self, text: str) -> float:
        return self._count(sum(1 for block in re.split(r"\n\s*\n", text) if block.strip()))

    def _count(self, n: int) -> float:
        if n < self.min:
            return n / self.min
        return 1.0 if self.max is None or n <= self.max else self.max / n

    def _json(self, text: str) -> float:
        try:
            value = json.loads(text, parse_constant=_number, parse_float=_number)
            return 1 / (1 + (violations(value, self._schema()) if self.json_schema else 0))
        except (ValueError, RecursionError):  # no JSON, or nested deeper than Python reads
            return 0.0

    def _regex(self, text: str) -> float:
        return float(bool(regex.fullmatch(nfc(self.pattern or ""), nfc(text))))

    def _schema(self) -> str:
        """The schema as JSON text; "" for none."""
        if isinstance(self.json_schema, str):
            try:
                return Path(self.json_schema).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise ModelError(f"{self.json_schema!r} can't be read: {reason}") from None
        return "" if self.json_schema is None else json.dumps(self.json_schema)


def list_items(text: str) -> tuple[list[int], int, int]:
    r"""The numbers of a numbered list, how many lines there are, and how many are of the list.

    >>> list_items("Two:\n1. a\n   more of a\n2. b")
    ([1, 2], 4, 3)
    """
    lines = [line for line in text.splitlines() if line.strip()]
    numbers: list[int] = []
    inside, before = 0, False
    for line in lines:
        item = ITEM.match(line)
        before = bool(item) or (before and line[0] in " \t")
        inside += before
        if item:
            numbers.append(int(item[1]))
    return numbers, len(lines), inside


def violations(value: Any, schema: str) -> int:
    """In how many places a value breaks a JSON Schema (jsonschema), given as JSON text.

    Raises:
        ModelError: the schema refers to something that is not in it.
    """
    from referencing.exceptions import Unresolvable

    try:
        return sum(1 for _ in _validator(schema).iter_errors(value))
    except Unresolvable as error:
        raise ModelError(f"json_schema: refers to {error.ref!r}, which is not in it") from None


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    """The validator of a schema.

    Raises:
        ValueError: it is none.
    """
    try:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for
        from referencing import Registry
    except ImportError:
        raise MissingPackage("jsonschema", "format_accuracy with a json_schema") from None
    try:
        tree = json.loads(schema)
        kind = validator_for(tree, default=Draft202012Validator)
        kind.check_schema(tree)
        made = kind(tree, registry=Registry())  # its own default downloads references
        made.is_valid([])
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON ({error})") from None
    except SchemaError as error:
        raise ValueError(f"is no JSON Schema: {error.message}") from None
    except RecursionError:
        raise ValueError("refers to itself without end") from None
    return made


def _number(text: str) -> float:
    """The number of a JSON text; what is too big for Python, NaN and infinity are refused."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value
