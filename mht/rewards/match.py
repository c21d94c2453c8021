"""Rewards that compare the response's words with the target's.

Exact match, jaccard, levenshtein, BLEU, ROUGE-L.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal

from mht.rewards.base import TargetReward, reward
from mht.types import Sample


@reward("exact_match")
class ExactMatch(TargetReward):
    """1.0 where the response is the target, else 0.0.

    Attributes:
        lowercase: upper and lower case are alike.
        strip: white space around either does not count.
    """

    lowercase: bool = False
    strip: bool = True

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """1.0 or 0.0 each."""
        return [float(self._plain(a) == self._plain(b)) for a, b in self.pairs(samples)]

    def _plain(self, text: str) -> str:
        text = text.strip() if self.strip else text
        return text.lower() if self.lowercase else text


@reward("jaccard")
class Jaccard(TargetReward):
    """Words in both over words in either (Jaccard 1901), in [0, 1]; 1.0 where both have none.

    Attributes:
        lowercase: upper and lower case are alike.
    """

    lowercase: bool = True

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The share of common words."""
        return [overlap(self._words(a), self._words(b)) for a, b in self.pairs(samples)]

    def _words(self, text: str) -> set[str]:
        return set(re.findall(r"\w+", text.lower() if self.lowercase else text))


def overlap(a: set[Any], b: set[Any]) -> float:
    """The Jaccard index of two sets; 1.0 for two empty ones.

    >>> overlap({"a", "b"}, {"b", "c"})
    0.3333333333333333
    """
    return len(a & b) / len(a | b) if a or b else 1.0


@reward("levenshtein")
class Levenshtein(TargetReward):
    """``1 - edit distance / longer length`` in characters, in [0, 1] (rapidfuzz).

    Attributes:
        lowercase: upper and lower case are alike.
    """

    needs: ClassVar[str] = "a target; rapidfuzz"

    lowercase: bool = False

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The normalised similarity."""
        from rapidfuzz.distance import Levenshtein as Distance

        fold = str.lower if self.lowercase else None
        return [
            Distance.normalized_similarity(a, b, processor=fold) for a, b in self.pairs(samples)
        ]


@reward("bleu")
class Bleu(TargetReward):
    """Sentence BLEU / 100 with effective order, in [0, 1] (sacrebleu).

    Papineni et al. 2002 (aclanthology.org/P02-1040); smoothing: Chen & Cherry 2014
    (aclanthology.org/W14-3346).

    Attributes:
        smooth_method: "exp", "floor", "add-k" or "none".
        smooth_value: of "floor" and "add-k"; null is sacrebleu's default.
        lowercase: upper and lower case are alike.
        tokenize: sacrebleu's tokenizer.
    """

    needs: ClassVar[str] = "a target; sacrebleu"

    smooth_method: Literal["exp", "floor", "add-k", "none"] = "exp"
    smooth_value: float | None = None
    lowercase: bool = False
    tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a"

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Sentence BLEU / 100."""
        from sacrebleu.metrics import BLEU

        bleu = BLEU(
            smooth_method=self.smooth_method,
            smooth_value=self.smooth_value,
            lowercase=self.lowercase,
            tokenize=self.tokenize,
            effective_order=True,
        )
        return [min(1.0, bleu.sentence_score(a, [b]).score / 100) for a, b in self.pairs(samples)]


@reward("rouge_l", "rouge-l", "rougel")
class RougeL(TargetReward):
    """ROUGE-L F1 of response and target, in [0, 1]. Lin 2004 (aclanthology.org/W04-1013).

    Like the original it compares words of a-z and 0-9 only: other scripts have none.

    Attributes:
        use_stemmer: words match by their Porter stem.
        lowercase: upper and lower case are alike; the stemmer lowers case in any event.
    """

    needs: ClassVar[str] = "a target; rouge-score"

    use_stemmer: bool = True
    lowercase: bool = True

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The F1."""
        scorer = _rouge(self.use_stemmer, self.lowercase)
        return [scorer.score(b, a)["rougeL"].fmeasure for a, b in self.pairs(samples)]


@lru_cache
def _rouge(use_stemmer: bool, lowercase: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import Tokenizer

    class CaseKeeping(Tokenizer):
        def tokenize(self, text: str) -> list[str]:
            return re.findall(r"[A-Za-z0-9]+", text)

    keep = not lowercase and not use_stemmer
    return RougeScorer(
        ["rougeL"], use_stemmer=use_stemmer, tokenizer=CaseKeeping() if keep else None
    )
