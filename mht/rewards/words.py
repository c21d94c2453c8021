"""What rewards of words share: n-grams, the overlap of two sets, a stemmer."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

NGrams = list[tuple[str, ...]]


def ngrams(text: str, n: int) -> NGrams:
    """The word n-grams of a text in lower case; a shorter text is one, an empty one has none.

    >>> ngrams("a B c", 2)
    [('a', 'b'), ('b', 'c')]
    """
    words = text.lower().split()
    if not words:
        return []
    return [tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))]


def overlap(a: set[Any], b: set[Any]) -> float:
    """The Jaccard index of two sets; 1.0 for two empty ones.

    >>> overlap({"a", "b"}, {"b", "c"})
    0.3333333333333333
    """
    return len(a & b) / len(a | b) if a or b else 1.0


@lru_cache
def stemmer() -> Any:
    """The Porter stemmer of nltk, made once."""
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()
