"""Rewards of the text's surface: length_window, keyword_count, regex_presence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import regex
from pydantic import AfterValidator, Field, model_validator

from mht.core.bounds import Segmenter
from mht.data.text.sample import Sample
from mht.data.text.words import LETTER, UNSPACED_LETTER, WORD, chunks, fold, nfc, spans
from mht.rewards.base import UNIT, Example, Positive, Range, TextReward, reward


def _compiles(pattern: str) -> str:
    try:
        regex.compile(nfc(pattern))
    except (regex.error, RecursionError, OverflowError) as error:
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
        token: a regular expression for one token; null counts words: what stands between white
            space, in scripts without spaces as the segmenter says.
        segmenter: what a word is in scripts without spaces: "characters", "icu" or "spaces".
    """

    family: ClassVar[str] = "surface"
    score_range: ClassVar[Range] = UNIT
    example: ClassVar[Example] = {"min": 4, "max": 12}

    min: Annotated[int, Field(ge=0)]
    max: Positive
    token: Pattern | None = None
    segmenter: Segmenter = "characters"

    @model_validator(mode="after")
    def _ordered(self) -> LengthWindow:
        if self.min > self.max:
            raise ValueError(f"min must not be above max, got min={self.min} max={self.max}")
        return self

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The score of each length."""
        return [self._of(self._length(nfc(text))) for text in self.texts(samples)]

    def _length(self, text: str) -> int:
        if self.token is None:
            return len(chunks(text, self.segmenter))
        return sum(1 for _ in regex.finditer(nfc(self.token), text))

    def _of(self, n: int) -> float:
        if n < self.min:
            return n / self.min
        return max(0.0, 1 - max(0, n - self.max) / self.max)


@reward("keyword_count")
class KeywordCount(TextReward):
    """How often the keywords occur as whole words, in upper or lower case.

    In a script without spaces a keyword stands between any two words of the segmenter.

    Attributes:
        keywords: words or phrases; their white space stands for any.
        normalize: instead, the share of the keywords that occur at all, in [0, 1]; repeating one
            then pays nothing.
        segmenter: what a word is in scripts without spaces: "characters", "icu" or "spaces".
    """

    family: ClassVar[str] = "surface"
    score_range: ClassVar[Range] = (0.0, math.inf)
    range_note: ClassVar[str] = "0 to 1 with normalize"
    better: ClassVar[Literal["either"]] = "either"
    example: ClassVar[Example] = {"keywords": ["film", "plot"]}

    keywords: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    normalize: bool = False
    segmenter: Segmenter = "characters"

    def bounds(self) -> Range:
        """Counts, or shares."""
        return UNIT if self.normalize else self.score_range

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The count, or the share."""
        patterns = [_keyword(word) for word in self.keywords]
        counts = [self._counts(_plain(text), patterns) for text in self.texts(samples)]
        if self.normalize:
            return [sum(n > 0 for n in row) / len(row) for row in counts]
        return [float(sum(row)) for row in counts]

    def _counts(self, text: str, patterns: Sequence[Any]) -> list[int]:
        inside = {i for start, end in spans(text, self.segmenter) for i in range(start + 1, end)}
        return [_count(text, pattern, inside) for pattern in patterns]


def _plain(text: str) -> str:
    return fold(text).replace("\u2019", "'")


def _keyword(word: str) -> Any:
    """The pattern of a keyword; "C" is not part of the names C++ and C#."""
    word = _plain(word)
    space = r"\s+" if word.strip() else ""
    parts = word.split() or [word]
    body = space.join(regex.escape(part, literal_spaces=True) for part in parts)
    if not WORD.search(word):
        return regex.compile(body)
    before = "" if UNSPACED_LETTER.match(word[:1]) else rf"(?<!{LETTER}|\p{{M}})"
    after = "" if UNSPACED_LETTER.match(word[-1:]) else rf"(?!{LETTER}|\p{{M}})"
    name = rf"(?![+#]+(?!{LETTER}))" if WORD.match(word[-1:]) else ""
    return regex.compile(rf"{before}{body}{after}{name}", regex.VERSION1)


def _count(text: str, pattern: Any, inside: set[int]) -> int:
    """How often the pattern is found that neither starts nor ends inside of a word."""
    count = at = 0
    while found := pattern.search(text, at):
        whole = found.start() not in inside and found.end() not in inside
        count += whole
        at = found.end() if whole else found.start() + 1
    return count


@reward("regex_presence")
class RegexPresence(TextReward):
    r"""1.0 where the pattern is found anywhere in the text, else 0.0.

    Attributes:
        pattern: a Python regular expression, as the package regex reads it: ``\w`` has the marks
            of all scripts, ``\p{Han}`` is a script.
        ignore_case: upper and lower case count as equal.
    """

    family: ClassVar[str] = "surface"
    score_range: ClassVar[Range] = UNIT
    better: ClassVar[Literal["either"]] = "either"
    example: ClassVar[Example] = {"pattern": "[.!?]$"}

    pattern: Pattern
    ignore_case: bool = False

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """1.0 or 0.0 each."""
        flags = regex.IGNORECASE | regex.FULLCASE if self.ignore_case else 0
        pattern = regex.compile(nfc(self.pattern), flags)
        return [float(bool(pattern.search(nfc(text)))) for text in self.texts(samples)]
