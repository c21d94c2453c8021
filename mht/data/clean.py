"""Texts made clean, and the normalised form by which two texts count as the same."""

from __future__ import annotations

import hashlib
import html
import unicodedata
from typing import Any

import regex

BREAKS = regex.compile(r"<br\s*/?>", regex.IGNORECASE)
CONTROLS = regex.compile(r"[\p{Cc}\p{Cf}\p{Cs}--[\n\t\u200c\u200d]]", regex.VERSION1)
INNER_SPACE = regex.compile(r"(?<=\S)[^\S\n]+")
TRAILING_SPACE = regex.compile(r"[^\S\n]+$", regex.MULTILINE)
BLANK_LINES = regex.compile(r"\n{3,}")
SEPARATORS = regex.compile(r"[\p{P}\s]+")


def clean(text: str) -> str:
    r"""A text in Unicode NFC without HTML entities, ``<br>``, control characters, odd spaces.

    Indentation and single blank lines stay; the joiners that emoji and several scripts need too.

    >>> clean("It&#39;s  fine<br />\u200b, cafe\u0301.\r\n")
    "It's fine\n, café."
    """
    text = BREAKS.sub("\n", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = unicodedata.normalize("NFC", html.unescape(text))
    text = CONTROLS.sub("", text)
    text = INNER_SPACE.sub(" ", text)
    text = TRAILING_SPACE.sub("", text)
    return BLANK_LINES.sub("\n\n", text).strip()


def normalise(text: str) -> str:
    """The form that near duplicates share: case, punctuation and whitespace taken out.

    A text of nothing but punctuation stays as it is.

    >>> normalise("A  Classic; truly."), normalise("3 - 2 = ?"), normalise("?!")
    ('aclassictruly', '3-2=', '?!')
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return SEPARATORS.sub(_separator, folded) or " ".join(folded.split())


def _separator(match: Any) -> str:
    """Nothing, but between two digits: 3-2, 3.2, 3 2 and 32 are different things."""
    text, start, end = match.string, match.start(), match.end()
    inside = start and end < len(text) and text[start - 1].isdigit() and text[end].isdigit()
    return ("".join(match[0].split()) or " ") if inside else ""


def content_key(*parts: str) -> str:
    """The sha256 (hex) of the parts' normalised forms: one key for all near duplicates."""
    return hashlib.sha256("\x1f".join(map(normalise, parts)).encode()).hexdigest()
