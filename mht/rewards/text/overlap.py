"""Rewards that count what response and target have in common: bleu, chrf, rouge_l, ter.

All of them compare texts in Unicode NFC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mht.core.bounds import Segmenter
from mht.data.text.rouge import RougeTokenizer
from mht.data.text.sample import Sample
from mht.data.text.words import fold, mteval_words, nfc, spread, warn_of_runs
from mht.rewards.base import Positive, Range, TargetReward, reward

Count = Annotated[int, Field(ge=0)]


@reward("bleu")
class Bleu(TargetReward):
    """Sentence BLEU / 100 with effective order, in [0, 1] (sacrebleu).

    Papineni et al. 2002 (aclanthology.org/P02-1040); smoothing: Chen & Cherry 2014
    (aclanthology.org/W14-3346).

    Attributes:
        smooth_method: "exp", "floor", "add-k" or "none".
        smooth_value: of "floor" and "add-k"; null is sacrebleu's default.
        lowercase: upper and lower case count as equal.
        tokenize: "auto" is sacrebleu's 13a, with words for scripts without spaces and with their
            punctuation apart; the others are sacrebleu's as they are.
        segmenter: of "auto": "characters", "icu" or "spaces".
    """

    needs: ClassVar[str] = "a target; sacrebleu"

    smooth_method: Literal["exp", "floor", "add-k", "none"] = "exp"
    smooth_value: float | None = None
    lowercase: bool = False
    tokenize: Literal["auto", "13a", "intl", "char", "zh", "none"] = "auto"
    segmenter: Segmenter = "characters"

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Sentence BLEU / 100."""
        from sacrebleu.metrics import BLEU

        bleu = BLEU(
            smooth_method=self.smooth_method,
            smooth_value=self.smooth_value,
            lowercase=self.lowercase,
            tokenize="13a" if self.tokenize == "auto" else self.tokenize,
            effective_order=True,
        )
        pairs = [(self._form(a), self._form(b)) for a, b in self.pairs(samples)]
        if self.tokenize in ("13a", "intl", "none"):
            warn_of_runs(f"bleu with tokenize: {self.tokenize}", "auto", (b for _, b in pairs))
        return [min(1.0, bleu.sentence_score(a, [b]).score / 100) for a, b in pairs]

    def _form(self, text: str) -> str:
        text = fold(text) if self.lowercase else nfc(text)
        return mteval_words(text, self.segmenter) if self.tokenize == "auto" else text


@reward("chrf")
class ChrF(TargetReward):
    """chrF / 100, the F-score of character n-grams, in [0, 1] (sacrebleu).

    Popovic 2015 (aclanthology.org/W15-3049); with ``word_order: 2`` it is chrF++, Popovic 2017
    (aclanthology.org/W17-4770). White space does not count; a character of
    a script without spaces is a word.

    Attributes:
        char_order: the most characters of a character n-gram.
        word_order: the most words of a word n-gram; 0 leaves out words.
        beta: recall weighs ``beta`` times as much as precision.
        lowercase: upper and lower case count as equal.
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
        form = fold if self.lowercase else nfc
        pairs = [(spread(form(a)), spread(form(b))) for a, b in self.pairs(samples)]
        return [min(1.0, chrf.sentence_score(a, [b]).score / 100) for a, b in pairs]


@reward("rouge_l", "rouge-l", "rougel")
class RougeL(TargetReward):
    """ROUGE-L F1 of response and target, in [0, 1]. Lin 2004 (aclanthology.org/W04-1013).

    Words in ASCII are those of rouge-score, and other scripts have theirs. Their longest common
    subsequence is rapidfuzz's: the same, and quick for long texts too.

    Attributes:
        use_stemmer: words match by their Porter stem, in ASCII only: it is for English.
        lowercase: upper and lower case count as equal; the stemmer always lowers case.
        segmenter: what a word is in scripts without spaces: "characters", "icu" or "spaces".
    """

    needs: ClassVar[str] = "a target; rouge-score"

    use_stemmer: bool = True
    lowercase: bool = True
    segmenter: Segmenter = "characters"

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The F1."""
        from rapidfuzz.distance import LCSseq
        from rouge_score.scoring import fmeasure

        words = RougeTokenizer(self.use_stemmer, self.lowercase, self.segmenter).tokenize
        scores = []
        for response, target in self.pairs(samples):
            said, meant = words(response), words(target)
            common = LCSseq.similarity(said, meant)
            scores.append(fmeasure(common / len(said), common / len(meant)) if common else 0.0)
        return scores


@reward("ter")
class Ter(TargetReward):
    """Translation edit rate / 100, from 0 (equal) without an upper end (sacrebleu).

    Word edits and shifts of word sequences that turn the response into the target, over the
    target's words: Snover et al. 2006 (aclanthology.org/2006.amta-papers.25). A response without a
    target gets 1.0, two empty texts 0.0.

    Attributes:
        lowercase: upper and lower case count as equal.
        normalized: punctuation marks are words of their own.
        no_punct: punctuation does not count.
        asian_support: with either of those two, for Chinese, Japanese and Korean as well.
        max_words: texts of more words are compared without shifts, which is the word error rate:
            the search for shifts takes up to seconds for a hundred words.
        segmenter: what a word is in scripts without spaces: "characters", "icu" or "spaces".
    """

    needs: ClassVar[str] = "a target; sacrebleu"
    score_range: ClassVar[Range] = (0.0, math.inf)
    better: ClassVar[Literal["low"]] = "low"

    lowercase: bool = True
    normalized: bool = False
    no_punct: bool = False
    asian_support: bool = False
    max_words: Positive = 128
    segmenter: Segmenter = "characters"

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The TER / 100."""
        from sacrebleu.tokenizers.tokenizer_ter import TercomTokenizer

        tokenizer = TercomTokenizer(
            normalized=self.normalized,
            no_punct=self.no_punct,
            asian_support=self.asian_support,
            case_sensitive=not self.lowercase,
        )

        def words(text: str) -> list[str]:
            form = fold(text) if self.lowercase else nfc(text)
            return tokenizer(spread(form, self.segmenter)).split()

        return [self._rate(words(a), words(b)) for a, b in self.pairs(samples)]

    def _rate(self, said: list[str], meant: list[str]) -> float:
        from rapidfuzz.distance import Levenshtein
        from sacrebleu.metrics.lib_ter import translation_edit_rate

        if not meant:
            return float(bool(said))
        if max(len(said), len(meant)) > self.max_words:
            return Levenshtein.distance(said, meant) / len(meant)
        return translation_edit_rate(said, meant)[0] / len(meant)
