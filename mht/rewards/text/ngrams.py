"""What rewards of words share: n-grams, and the overlap of two sets."""

from __future__ import annotations

from typing import Any

from mht.data.text.words import chunks, fold

NGrams = list[tuple[str, ...]]


def ngrams(text: str, n: int, segmenter: str = "characters") -> NGrams:
    """The word n-grams of a text in lower case; a shorter text is one, an empty one has none.

    Words stand between white space; a segmenter divides those of scripts without spaces.

    >>> ngrams("a B c", 2)
    [('a', 'b'), ('b', 'c')]
    """
    words = chunks(fold(text), segmenter)
    if not words:
        return []
    return [tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))]


def overlap(a: set[Any], b: set[Any]) -> float:
    """The Jaccard index of two sets; 1.0 for two empty ones.

    >>> overlap({"a", "b"}, {"b", "c"})
    0.3333333333333333
    """
    return len(a & b) / len(a | b) if a or b else 1.0
