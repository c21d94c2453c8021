"""Texts made clean, and the normalised forms by which two texts count as the same."""

from __future__ import annotations

import hashlib
import html
import unicodedata
from collections.abc import Iterable
from html.entities import html5
from typing import Any

import regex

BREAKS = regex.compile(r"<br\s*/?>", regex.IGNORECASE)
ENTITY = regex.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{0,31});")
NEW_LINES = regex.compile(r"\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Controls, half surrogates, and the format characters (Cf) that no script needs: soft hyphen, zero
# width space, word joiner, BOM, bidi embeddings, overrides and isolates, invisible operators,
# annotations, tags. Joiners, Arabic number signs, hieroglyph layout and the like stay.
INVISIBLE = (
    r"[[\p{Cc}\p{Cs}\u00ad\u200b\u2060-\u2064\ufeff\u202a-\u202e\u2066-\u206f\ufff9-\ufffb"
    r"\U000e0001\U000e0020-\U000e007f]--[\n\t]]"
)
# Kept of these: the tags of an emoji (England's flag), and the zero width spaces that part words.
TAGGED = r"\p{Extended_Pictographic}\p{EMod}?\ufe0f?[\U000e0020-\U000e007e]+\U000e007f"
PARTED = r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
CONTROLS = regex.compile(
    rf"({TAGGED}|(?<={PARTED})\u200b+(?={PARTED}))|{INVISIBLE}", regex.VERSION1
)
DIRECTION = regex.compile(r"[\u061c\u200e\u200f]")  # marks that only texts from the right need
FROM_THE_RIGHT = regex.compile(r"[[\p{Bidi_Class=R}\p{Bidi_Class=AL}]&&\p{L}]", regex.VERSION1)
INNER_SPACE = regex.compile(r"(?<=\S)[^\S\n]+")
TRAILING_SPACE = regex.compile(r"(?<![^\S\n])[^\S\n]+$", regex.MULTILINE)
BLANK_LINES = regex.compile(r"\n{3,}")

PUNCTUATION = regex.compile(r"[\p{P}\s]+")
SIGN = r"[#%&*/@\\_\u00a7\u00b6\u066a\u2020\u2021\u2030-\u2033^\p{Sm}\p{Sc}]"
# Punctuation that says something, in prose, in formulas and in code.
MEANINGFUL = regex.compile(
    rf"""
    {SIGN}
    | [!:?-](?=[=<>]) | (?<=<)-                     # in an operator: != := ->
    | (?<![\p{{L}}\p{{M}}\p{{N}}])!(?=[\p{{L}}_(])      # not: !ready
    | (?<![\p{{L}}\p{{M}}\p{{N}}])[-\u2013](?=\p{{N}})    # minus: -5
    | (?<=\[): | :(?=\])                            # a slice: x[1:]
    | (?<={SIGN}[ ]?)[-\u2013]                       # after another sign: = -x
    | (?<={SIGN}[ ]?-?)[(\[{{] | [)\]}}](?=[ ]?{SIGN})  # a group: 2 * (3 + 4)
    """,
    regex.VERBOSE | regex.VERSION1,
)
NUMBER_SIGNS = regex.compile(r"\p{No}+")  # superscripts, fractions, circled: not plain digits


def clean(text: str) -> str:
    r"""A text in Unicode NFC without HTML entities, ``<br>``, control characters, odd spaces.

    An entity ends with its semicolon: ``&region=`` is none. Indentation and single blank lines
    stay, and invisible characters that emoji and scripts need.

    >>> clean("It&#39;s  fine<br />\u200b, cafe\u0301.\r\n")
    "It's fine\n, café."
    """
    text = ENTITY.sub(_character, BREAKS.sub("\n", text))
    text = CONTROLS.sub(r"\1", NEW_LINES.sub("\n", text))
    if not FROM_THE_RIGHT.search(text):
        text = DIRECTION.sub("", text)
    text = INNER_SPACE.sub(" ", unicodedata.normalize("NFC", text))
    text = TRAILING_SPACE.sub("", text)
    return BLANK_LINES.sub("\n\n", text).strip()


def _character(match: Any) -> str:
    """What an HTML entity stands for, or the text as it is where there is no such entity."""
    entity: str = match[0]
    return html.unescape(entity) if entity[1] == "#" else html5.get(entity[1:], entity)


def normalise(text: str) -> str:
    """The form that near duplicates share: case, sentence punctuation and white space taken out.

    Signs stay (``%``, ``&``, ``#``, ``*``, ``/``, ``_``), and punctuation with a meaning: ``!=``,
    ``!ready``, ``-5``, brackets beside a sign. A text of nothing but punctuation stays as it is.

    >>> normalise("A  Classic; truly."), normalise("3 - 2 = ?"), normalise("?!")
    ('aclassictruly', '3-2=', '?!')
    >>> normalise("return a % b"), normalise("x = -(a + 1) / 2"), normalise("(A dog)")
    ('returna%b', 'x=-(a+1)/2', 'adog')
    """
    kept = NUMBER_SIGNS.findall(text)
    parts = [unicodedata.normalize("NFKC", part) for part in NUMBER_SIGNS.split(text)]
    folded = "".join(a + b for a, b in zip(parts, [*kept, ""], strict=True)).casefold()
    folded = " ".join(folded.split())
    return PUNCTUATION.sub(_meaning, folded) or folded


def outline(text: str) -> str:
    """The looser form that keeps texts in one split: no punctuation at all.

    >>> outline("return a % b") == outline("return a & b")
    True
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return PUNCTUATION.sub(_between_digits, folded) or " ".join(folded.split())


def _meaning(match: Any) -> str:
    """What of a stretch of punctuation and white space says something."""
    text, end = match.string, match.end()
    if match[0] == " ":
        return _between_digits(match)
    found = MEANINGFUL.finditer(text, match.start(), min(end + 2, len(text)))
    return _between_digits(match) or "".join(sign[0] for sign in found if sign.start() < end)


def _between_digits(match: Any) -> str:
    """The punctuation between two digits: 3-2, 3.2, 3 2 and 32 are different things."""
    text, start, end = match.string, match.start(), match.end()
    inside = start and end < len(text) and text[start - 1].isdigit() and text[end].isdigit()
    return ("".join(match[0].split()) or " ") if inside else ""


def content_key(*parts: str) -> str:
    """The sha256 (hex) of the parts' normalised forms: one key for all near duplicates.

    Its first 8 digits are those of `group_key`: sorted by their keys, texts stand in an order that
    their signs have no say in.
    """
    return group_key(*parts)[:8] + _key(map(normalise, parts))[8:]


def group_key(*parts: str) -> str:
    """The sha256 (hex) of the parts' outlines: texts that share it belong in one split."""
    return _key(map(outline, parts))


def _key(forms: Iterable[str]) -> str:
    return hashlib.sha256("\x1f".join(forms).encode()).hexdigest()
