"""Rewards of the text's surface: length_window, keyword_count, regex_presence."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from mht.rewards.base import UNIT, Example, Positive, Range, TextReward, reward
from mht.types import Sample


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]


@reward("length_window", "length_consistency")
class LengthWindow(TextReward):
    """1.0 inside [min, max] tokens, falling in a straight line to 0.0 outside.

    Below, ``n / min``: 0 for an empty text. Above, ``1 - (n - max) / max``: 0 from ``2 * max`` on.

    Attributes:
        min: fewest tokens with the full score.
        max: most tokens with the full score.
        token: a regular expression for one token; the default counts words between white space.
    """

    family: ClassVar[str] = "surface"
    score_range: ClassVar[Range] = UNIT
    example: ClassVar[Example] = {"min": 4, "max": 12}

    min: Annotated[int, Field(ge=0)]
    max: Positive
    token: Pattern = r"\S+"

    @model_validator(mode="after")
    def _ordered(self) -> LengthWindow:
        if self.min > self.max:
            raise ValueError(f"min must not be above max, got min={self.min} max={self.max}")
        return self

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The score of each length."""
        token = re.compile(self.token)
        return [self._of(sum(1 for _ in token.finditer(t))) for t in self.texts(samples)]

    def _of(self, n: int) -> float:
        if n < self.min:
            return n / self.min
        return max(0.0, 1 - max(0, n - self.max) / self.max)


@reward("keyword_count")
class KeywordCount(TextReward):
    """How often the keywords occur as whole words, upper and lower case alike.

    Attributes:
        keywords: words or phrases.
        normalize: instead, the share of the keywords that occur at all, in [0, 1]; repeating one
            then pays nothing.
    """

    family: ClassVar[str] = "surface"
    score_range: ClassVar[Range] = (0.0, math.inf)
    range_note: ClassVar[str] = "0 to 1 with normalize"
    better: ClassVar[Literal["either"]] = "either"
    example: ClassVar[Example] = {"keywords": ["film", "plot"]}

    keywords: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    normalize: bool = False

    def bounds(self) -> Range:
        """Counts, or shares."""
        return UNIT if self.normalize else self.score_range

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The count, or the share."""
        words = [
            re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE) for word in self.keywords
        ]
        counts = [[len(w.findall(text)) for w in words] for text in self.texts(samples)]
        if self.normalize:
            return [sum(n > 0 for n in row) / len(row) for row in counts]
        return [float(sum(row)) for row in counts]


@reward("regex_presence")
class RegexPresence(TextReward):
    """1.0 where the pattern is found anywhere in the text, else 0.0.

    Attributes:
        pattern: a Python regular expression.
        ignore_case: upper and lower case are alike.
    """

    family: ClassVar[str] = "surface"
    score_range: ClassVar[Range] = UNIT
    better: ClassVar[Literal["either"]] = "either"
    example: ClassVar[Example] = {"pattern": "[.!?]$"}

    pattern: Pattern
    ignore_case: bool = False

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """1.0 or 0.0 each."""
        pattern = re.compile(self.pattern, re.IGNORECASE if self.ignore_case else 0)
        return [float(bool(pattern.search(text))) for text in self.texts(samples)]
