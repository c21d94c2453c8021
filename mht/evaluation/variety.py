"""How varied responses are: different n-grams in groups of them, repetition within each.

Texts are compared in Unicode NFC. In scripts without spaces each character is a word.
"""

from __future__ import annotations

from collections.abc import Sequence

from mht.data.text.words import fold, words
from mht.evaluation.metrics import GROUP, REPEATED


def distinct(responses: Sequence[str], n: int, *, group: int = GROUP) -> list[float]:
    """Share of different n-grams among all n-grams, for each group of responses.

    Distinct-n (Li et al. 2016, arXiv:1510.03055) falls as more text is counted together. Fixed
    groups of consecutive responses make it independent of the number of prompts, and give values
    to bootstrap over. An incomplete last group is dropped unless it is the only one.

    Args:
        responses: texts; words are lowercased, as `mht.data.text.words` has them.
        n: length of the n-grams.
        group: responses in a group.

    Returns:
        A value in [0, 1] per group; 0 for a group without any n-gram.

    >>> distinct(["a b a b"], 2)
    [0.6666666666666666]
    """
    size = min(group, len(responses))
    stops = range(size, len(responses) + 1, size) if size else range(0)
    return [_distinct(responses[stop - size : stop], n) for stop in stops]


def _distinct(responses: Sequence[str], n: int) -> float:
    grams: list[tuple[str, ...]] = []
    for response in responses:
        grams += _ngrams(response, n)
    return len(set(grams)) / len(grams) if grams else 0.0


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    found = words(fold(text))
    return list(zip(*(found[i:] for i in range(n)), strict=False))


def repetition(responses: Sequence[str], n: int = REPEATED) -> list[float]:
    """Share of the n-grams within each response that occurred earlier in it.

    seq-rep-n of Welleck et al. 2019 (arXiv:1908.04319), over words where the paper has tokens:
    ``1 - different n-grams / all n-grams``. A response without any n-gram repeats nothing.

    Args:
        responses: texts; words are lowercased, as `mht.data.text.words` has them.
        n: length of the n-grams.

    >>> repetition(["so good so good so good", "so good"], 2)
    [0.6, 0.0]
    """
    counted = [_ngrams(response, n) for response in responses]
    return [1 - len(set(grams)) / len(grams) if grams else 0.0 for grams in counted]
