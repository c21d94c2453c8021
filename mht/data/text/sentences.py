"""A text as its sentences, by rules that need no model and no language."""

from __future__ import annotations

import re

CLOSING = "[\"'\u2019\u201d\u00bb)\\]\u300d\u300f\uff09]*"  # quotes and brackets
END = re.compile(
    rf"[.!?\u2026]+{CLOSING}(?=\s|$)"  # scripts that put a space after a sentence
    # stops that end a sentence without one: Chinese, Japanese, Hindi, Arabic, Urdu, Armenian,
    # Amharic, Khmer, Burmese, Tibetan, Mongolian
    r"|[\u3002\uff01\uff1f\uff61\u0964\u0965\u061f\u06d4\u0589\u1362\u1367\u1368\u17d4\u17d5"
    rf"\u104b\u0f0d\u1803\u203c\u2047-\u2049]+{CLOSING}"
    r"|\n+"
)
ABBREVIATIONS = {
    "al", "approx", "cf", "co", "col", "corp", "dr", "etc", "fig", "gen", "inc", "ltd", "mr", "mrs",
    "ms", "prof", "rep", "rev", "sen", "st", "vol", "vs",
}  # fmt: skip
LAST_WORD = re.compile(r"[^\W_]+(?:\.[^\W_]+)*$")


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order, without those that have no letter and no digit.

    A full stop ends none after an abbreviation or an initial, nor before a small letter; a new line
    always does.

    >>> sentences("Dr. A. Smith paid 3.5 dollars. Did he? 他来了。是的")
    ['Dr. A. Smith paid 3.5 dollars.', 'Did he?', '他来了。', '是的']
    """
    found, start = [], 0
    for end in END.finditer(text):
        if not _inside(text, end):
            found.append(text[start : end.end()])
            start = end.end()
    found.append(text[start:])
    return [s.strip() for s in found if any(c.isalnum() for c in s)]


def _inside(text: str, end: re.Match[str]) -> bool:
    """Whether what looks like an end stands within a sentence."""
    if end[0][0] not in ".!?\u2026":
        return False
    if text[end.end() : end.end() + 2].lstrip(" ")[:1].islower():
        return True
    word = LAST_WORD.search(text[max(0, end.start() - 20) : end.start()])
    if end[0] != "." or word is None:
        return False
    last = word[0]
    initial = len(last) == 1 and last.isupper() and last != "I"
    dotted = "." in last and not last[0].isdigit()  # U.S, e.g
    return initial or dotted or last.lower() in ABBREVIATIONS
