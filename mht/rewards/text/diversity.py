"""Rewards for being different: from the other responses of the batch, and within a response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from mht.core.bounds import Segmenter
from mht.data.text.sample import Sample
from mht.rewards.base import UNIT, Positive, Range, TextReward, reward
from mht.rewards.text.ngrams import ngrams, overlap


@reward("diversity")
class Diversity(TextReward):
    """How little a text repeats the batch's others, or itself, in [0, 1].

    "pairwise": 1 - the mean Jaccard index of its n-grams with those of each other text of the
    batch. This is Self-BLEU (Zhu et al. 2018, arXiv:1802.01886) with a cheaper similarity. A text
    alone in its batch gets 1.0.

    "distinct": different n-grams over all n-grams of the text (distinct-n, Li et al. 2016,
    arXiv:1510.03055). An empty text gets 0.0.

    Attributes:
        method: "pairwise" or "distinct".
        ngram: words per n-gram; a shorter text is one n-gram.
        segmenter: what a word is in scripts without spaces: "characters", "icu" or "spaces".
    """

    family: ClassVar[str] = "diversity"
    needs: ClassVar[str] = "batches of more than one, for pairwise"
    score_range: ClassVar[Range] = UNIT

    method: Literal["pairwise", "distinct"] = "pairwise"
    ngram: Positive = 2
    segmenter: Segmenter = "characters"

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """The text alone for "distinct"; the batch has a say in "pairwise"."""
        return super().reads(sample) if self.method == "distinct" else None

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The diversity of each text."""
        grams = [ngrams(text, self.ngram, self.segmenter) for text in self.texts(samples)]
        if self.method == "distinct":
            return [len(set(g)) / len(g) if g else 0.0 for g in grams]
        return _pairwise([set(g) for g in grams])


def _pairwise(sets: list[set[tuple[str, ...]]]) -> list[float]:
    count = len(sets)
    if count == 1:
        return [1.0]
    alike = [[0.0] * count for _ in sets]
    for i in range(count):
        for j in range(i):
            alike[i][j] = alike[j][i] = overlap(sets[i], sets[j])
    return [1 - sum(row) / (count - 1) for row in alike]
