"""The words of a text in any script, and the one form in which texts are compared.

A word is a run of letters, marks, digits and underscores (UAX #29, but "don't" is two words), or an
emoji. Chinese, Japanese, Thai and some other scripts have no spaces between words: a *segmenter*
divides their runs of letters.

- ``characters``: each user-perceived character (a letter with its marks) is a word;
- ``icu``: by the dictionaries of ICU (the package icu4py);
- ``spaces``: not at all.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import regex

from mht.core.errors import MissingPackage

SCRIPTS_WITHOUT_SPACES = (
    "Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Thai", "Lao", "Khmer", "Myanmar", "Tai_Le",
    "New_Tai_Lue", "Tai_Tham", "Tai_Viet",
)  # fmt: skip
_SCRIPTS = "".join(rf"\p{{{name}}}" for name in SCRIPTS_WITHOUT_SPACES)
UNSPACED = rf"[[{_SCRIPTS}\u30fc\uff70]&&[\p{{L}}\p{{Nl}}]]"  # with the long vowel mark of kana
LETTER = rf"[[\p{{L}}\p{{N}}\p{{Pc}}]--{UNSPACED}]"  # or digit, or underscore
JOINER = r"[\u00ad\u200c\u200d\u2060\ufeff]"  # invisible within a word: soft hyphen, ZWNJ, ZWJ...
SPACED = rf"{LETTER}(?:{LETTER}|\p{{M}}|{JOINER}+(?={LETTER}))*"
EMOJI = (
    r"(?=[\p{Emoji_Presentation}\p{Regional_Indicator}\u2639\u263a\u2665\u2764]"
    r"|\p{Extended_Pictographic}\ufe0f)\X"
)
CLUSTER = rf"(?={UNSPACED})\X\p{{M}}*"  # a letter of such a script with all its marks
RUN = rf"(?:{CLUSTER})+"
WORD = regex.compile(rf"(?P<run>{RUN})|{SPACED}|{EMOJI}", regex.VERSION1)
RUNS = regex.compile(RUN, regex.VERSION1)
UNSPACED_LETTER = regex.compile(UNSPACED, regex.VERSION1)
MARK = regex.compile(r"\S")
STOPS = regex.compile(r"[\p{Terminal_Punctuation}--\p{ASCII}]", regex.VERSION1)
CHARACTER = regex.compile(r"\X\p{M}*")
ASCII_WORD = re.compile(r"\w+")
CHUNK = re.compile(r"\S+")
OPENING = regex.compile(r"[\p{Ps}\p{Pi}]+$")
CLOSING = regex.compile(r"[^\p{L}\p{N}\p{Ps}\p{Pi}\p{Extended_Pictographic}]*")
SAYS_SOMETHING = regex.compile(r"[\p{L}\p{N}\p{Extended_Pictographic}]")
INVISIBLE = str.maketrans(dict.fromkeys("\u00ad\u2060\ufeff"))
CASED = "LC"  # letters of scripts that have capitals
DOTS = str.maketrans({"\u0131": "i"})  # Turkish: I and dotless i, dotted I and i are pairs


class ScriptWarning(Warning):
    """A figure does not hold for the script of its texts."""


def nfc(text: str) -> str:
    """The text in Unicode's composed form, in which equal texts are equal strings."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def fold(text: str) -> str:
    """The text without its case, in NFC: what differs in upper and lower case alone is equal.

    Unicode's case folding, and all four i of Turkish as one, since the language is not known.

    >>> fold("Straße İSTANBUL") == fold("STRASSE istanbul")
    True
    """
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFD", text).casefold().replace("i\u0307", "i")
    return unicodedata.normalize("NFC", folded.translate(DOTS))


def spans(text: str, segmenter: str = "characters") -> Iterator[tuple[int, int]]:
    """Where each word of a text starts and ends."""
    for match in WORD.finditer(text):
        start = match.start()
        for part in segments(match[0], segmenter) if match["run"] else (match[0],):
            yield start, start + len(part)
            start += len(part)


def words(text: str, segmenter: str = "characters") -> list[str]:
    """The words of a text, without its punctuation and other signs.

    >>> words("I don't know: 我爱电影, กำ, की!")
    ['I', 'don', 't', 'know', '我', '爱', '电', '影', 'กำ', 'की']
    """
    if text.isascii():
        return ASCII_WORD.findall(text)
    return [text[start:end].translate(INVISIBLE) for start, end in spans(text, segmenter)]


def marked_words(text: str, segmenter: str = "characters") -> list[str]:
    """The words of a text, and each other character that is no white space, in their order.

    >>> marked_words("It's 好!")
    ['It', "'", 's', '好', '!']
    """
    found, at = [], 0
    for start, end in spans(text, segmenter):
        found += [*MARK.findall(text, at, start), text[start:end]]
        at = end
    return found + MARK.findall(text, at)


def segments(run: str, segmenter: str) -> list[str]:
    """A run of letters of a script without spaces, divided.

    Raises:
        MissingPackage: the segmenter's package is not installed.
    """
    if segmenter == "characters":
        return CHARACTER.findall(run)
    return [run] if segmenter == "spaces" else list(_by_dictionary(run))


@lru_cache(maxsize=4096)
def _by_dictionary(run: str) -> tuple[str, ...]:
    try:
        from icu4py.breakers import WordBreaker
    except ImportError:
        raise MissingPackage("icu4py", "segmenter: icu") from None
    return tuple(WordBreaker(run, "und"))


def spread(text: str, segmenter: str = "characters") -> str:
    """The text with spaces around each word of a script without spaces; others stay as they are.

    >>> spread("看iPhone, good")
    ' 看 iPhone, good'
    """
    if text.isascii():
        return text
    return RUNS.sub(lambda match: f" {' '.join(segments(match[0], segmenter))} ", text)


def mteval_words(text: str, segmenter: str = "characters") -> str:
    """The text as BLEU's tokenizer 13a can divide it at spaces; ASCII stays as it is.

    >>> mteval_words("好看。अच्छा है।").split()
    ['好', '看', '。', 'अच्छा', 'है', '।']
    """
    return text if text.isascii() else STOPS.sub(r" \g<0> ", spread(text, segmenter))


def pieces(text: str, segmenter: str = "characters") -> Iterator[tuple[int, int]]:
    """Where the words of a text start and end, with the punctuation that clings to them.

    What stands between white space is one; in scripts without spaces it is divided further.

    >>> [text[a:b] for text in ["Well, 我爱「电影」。"] for a, b in pieces(text)]
    ['Well,', '我', '爱', '「电', '影」。']
    """
    for chunk in CHUNK.finditer(text):
        cuts = [0, *_cuts(chunk[0], segmenter), len(chunk[0])]
        for start, end in pairwise(cuts):
            yield chunk.start() + start, chunk.start() + end


def chunks(text: str, segmenter: str = "characters") -> list[str]:
    """The texts of `pieces`."""
    if text.isascii():
        return text.split()
    return [text[start:end] for start, end in pieces(text, segmenter)]


def _cuts(chunk: str, segmenter: str) -> list[int]:
    """Where a stretch without white space is divided, its own ends left out."""
    cuts = [0]
    if chunk.isascii():
        return []
    for run in RUNS.finditer(chunk):
        opening = OPENING.search(chunk, cuts[-1], run.start())
        start = opening.start() if opening else run.start()
        if SAYS_SOMETHING.search(chunk, cuts[-1], start):
            cuts.append(start)
        at = run.start()
        for part in segments(run[0], segmenter)[:-1]:
            at += len(part)
            cuts.append(at)
        cuts.append(CLOSING.match(chunk, run.end()).end())
    return [cut for cut in cuts if 0 < cut < len(chunk)]


def warn_of_other_scripts(
    name: str, what: str, texts: Iterable[str], script: str = "Latin"
) -> None:
    """Warn that a figure is for one script, where most letters of a text are of another.

    Args:
        name: of the reward or metric; Python shows each of these warnings once.
        what: what it takes its texts for.
        texts: the texts of the batch.
        script: as Unicode calls it, or `CASED` for all that have capitals.
    """
    if any(_other_script(text, script) for text in texts):
        warnings.warn(
            f"{name} {what}: its figures mean nothing for texts in another script",
            ScriptWarning,
            stacklevel=3,
        )


def warn_of_runs(name: str, better: str, texts: Iterable[str]) -> None:
    """Warn that something takes a run of a script without spaces for one word.

    Args:
        name: of what does so, with the option that makes it.
        better: the option's value that divides the run.
        texts: the texts of the batch.
    """
    if any(RUNS.search(text) for text in texts):
        message = f"{name} takes a whole run of Chinese, Japanese or Thai for a word: set {better}"
        warnings.warn(message, ScriptWarning, stacklevel=3)


def _other_script(text: str, script: str) -> bool:
    if text.isascii() and script in ("Latin", CASED):
        return False
    own, letters = _counters(script)
    return 2 * len(own.findall(text)) < len(letters.findall(text))


@lru_cache(maxsize=16)
def _counters(script: str) -> tuple[Any, Any]:
    return regex.compile(rf"[\p{{L}}&&\p{{{script}}}]", regex.VERSION1), regex.compile(r"\p{L}")
