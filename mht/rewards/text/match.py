"""Rewards that compare the response with the target as it stands, both in Unicode NFC.

Exact match, jaccard, levenshtein.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mht.core.bounds import Segmenter
from mht.data.text.sample import Sample
from mht.data.text.words import fold, nfc, words
from mht.rewards.base import TargetReward, reward
from mht.rewards.text.ngrams import overlap


@reward("exact_match")
class ExactMatch(TargetReward):
    """1.0 where the response is the target, else 0.0.

    Attributes:
        lowercase: upper and lower case count as equal.
        strip: white space around either does not count.
    """

    lowercase: bool = False
    strip: bool = True

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """1.0 or 0.0 each."""
        return [float(self._plain(a) == self._plain(b)) for a, b in self.pairs(samples)]

    def _plain(self, text: str) -> str:
        text = text.strip() if self.strip else text
        return fold(text) if self.lowercase else nfc(text)


@reward("jaccard")
class Jaccard(TargetReward):
    """Words in both over words in either (Jaccard 1901), in [0, 1].

    Texts without a word are compared as they are, without their white space.

    Attributes:
        lowercase: upper and lower case count as equal.
        segmenter: what a word is in scripts without spaces: "characters", "icu" or "spaces".
    """

    lowercase: bool = True
    segmenter: Segmenter = "characters"

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The share of common words."""
        return [self._of(a, b) for a, b in self.pairs(samples)]

    def _of(self, response: str, target: str) -> float:
        said, meant = self._words(response), self._words(target)
        if said or meant:
            return overlap(said, meant)
        return float(nfc(response).split() == nfc(target).split())

    def _words(self, text: str) -> set[str]:
        return set(words(fold(text) if self.lowercase else nfc(text), self.segmenter))


@reward("levenshtein")
class Levenshtein(TargetReward):
    """``1 - edit distance / longer length`` in code points of NFC, in [0, 1] (rapidfuzz).

    Attributes:
        lowercase: upper and lower case count as equal.
    """

    needs: ClassVar[str] = "a target; rapidfuzz"

    lowercase: bool = False

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The normalised similarity."""
        from rapidfuzz.distance import Levenshtein as Distance

        form = fold if self.lowercase else nfc
        return [
            Distance.normalized_similarity(a, b, processor=form) for a, b in self.pairs(samples)
        ]
