"""Rewards that count what response and target have in common: bleu, chrf, rouge_l, ter."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mht.rewards.base import Positive, Range, TargetReward, reward
from mht.rewards.words import stemmer
from mht.types import Sample

Count = Annotated[int, Field(ge=0)]


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


@reward("chrf")
class ChrF(TargetReward):
    """chrF / 100, the F-score of character n-grams, in [0, 1] (sacrebleu).

    Popovic 2015 (aclanthology.org/W15-3049); with ``word_order: 2`` it is chrF++, Popovic 2017
    (aclanthology.org/W17-4770). White space does not count.

    Attributes:
        char_order: character n-grams of up to so many characters.
        word_order: word n-grams of up to so many words count along; 0 for none.
        beta: recall weighs ``beta`` times as much as precision.
        lowercase: upper and lower case are alike.
    """

    needs: ClassVar[str] = "a target; sacrebleu"

    char_order: Positive = 6
    word_order: Count = 0
    beta: Positive = 2
    lowercase: bool = False

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The chrF / 100."""
        from sacrebleu.metrics import CHRF

        chrf = CHRF(
            char_order=self.char_order,
            word_order=self.word_order,
            beta=self.beta,
            lowercase=self.lowercase,
        )
        return [min(1.0, chrf.sentence_score(a, [b]).score / 100) for a, b in self.pairs(samples)]


@reward("rouge_l", "rouge-l", "rougel")
class RougeL(TargetReward):
    """ROUGE-L F1 of response and target, in [0, 1]. Lin 2004 (aclanthology.org/W04-1013).

    Words are those of rouge-score. Like the original it compares words of a-z and 0-9 only: other
    scripts have none. Their longest common subsequence is rapidfuzz's: the same, and quick for
    long texts too.

    Attributes:
        use_stemmer: words match by their Porter stem.
        lowercase: upper and lower case are alike; the stemmer lowers case in any event.
    """

    needs: ClassVar[str] = "a target; rouge-score"

    use_stemmer: bool = True
    lowercase: bool = True

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The F1."""
        from rapidfuzz.distance import LCSseq
        from rouge_score.scoring import fmeasure

        scores = []
        for response, target in self.pairs(samples):
            said, meant = self._words(response), self._words(target)
            common = LCSseq.similarity(said, meant)
            scores.append(fmeasure(common / len(said), common / len(meant)) if common else 0.0)
        return scores

    def _words(self, text: str) -> list[str]:
        from rouge_score.tokenize import tokenize

        if self.lowercase or self.use_stemmer:
            return tokenize(text, stemmer() if self.use_stemmer else None)
        return re.findall(r"[A-Za-z0-9]+", text)


@reward("ter")
class Ter(TargetReward):
    """Translation edit rate / 100, from 0 (alike) without an upper end (sacrebleu).

    Word edits and shifts of word sequences that turn the response into the target, over the
    target's words: Snover et al. 2006 (aclanthology.org/2006.amta-papers.25). A response without a
    target gets 1.0, two empty texts 0.0.

    Attributes:
        lowercase: upper and lower case are alike.
        normalized: punctuation marks are words of their own.
        no_punct: punctuation does not count.
        asian_support: with either of those two, for Chinese, Japanese and Korean as well.
        max_words: texts of more words are compared without shifts, which is the word error rate:
            the search for shifts takes up to seconds for a hundred words.
    """

    needs: ClassVar[str] = "a target; sacrebleu"
    score_range: ClassVar[Range] = (0.0, math.inf)
    better: ClassVar[Literal["low"]] = "low"

    lowercase: bool = True
    normalized: bool = False
    no_punct: bool = False
    asian_support: bool = False
    max_words: Positive = 128

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The TER / 100."""
        from sacrebleu.tokenizers.tokenizer_ter import TercomTokenizer

        tokenizer = TercomTokenizer(
            normalized=self.normalized,
            no_punct=self.no_punct,
            asian_support=self.asian_support,
            case_sensitive=not self.lowercase,
        )
        pairs = self.pairs(samples)
        return [self._rate(tokenizer(a).split(), tokenizer(b).split()) for a, b in pairs]

    def _rate(self, said: list[str], meant: list[str]) -> float:
        from rapidfuzz.distance import Levenshtein
        from sacrebleu.metrics.lib_ter import translation_edit_rate

        if not meant:
            return float(bool(said))
        if max(len(said), len(meant)) > self.max_words:
            return Levenshtein.distance(said, meant) / len(meant)
        return translation_edit_rate(said, meant)[0] / len(meant)
