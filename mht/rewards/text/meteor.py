"""A reward of aligned words: meteor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from mht.core.bounds import Segmenter
from mht.core.errors import ModelError
from mht.data.text.rouge import stemmer
from mht.data.text.sample import Sample
from mht.data.text.words import fold, marked_words, warn_of_other_scripts
from mht.rewards.base import TargetReward, reward

Share = Annotated[float, Field(ge=0, le=1)]


@reward("meteor")
class Meteor(TargetReward):
    """METEOR of response and target, in [0, 1] (nltk). Lavie & Agarwal 2007 (W07-0734).

    Words and punctuation marks in lower case are aligned by their form, then by their Porter stem
    (ASCII only), then by WordNet (with ``synonyms``). With precision P and recall R
    of the m aligned ones, in c chunks of neighbours, the score is
    ``P R / (alpha P + (1 - alpha) R) (1 - gamma (c / m)^beta)``:
    m words repeated exactly get ``1 - gamma / m^beta``, a little less than 1.

    Attributes:
        alpha: 1 looks at recall alone, 0 at precision alone.
        beta: how steeply the penalty for scattered matches rises.
        gamma: the penalty where no two matches are neighbours.
        synonyms: English words also match by nltk's WordNet, which has to be downloaded once:
            ``python -m nltk.downloader wordnet``.
        segmenter: what a word is in scripts without spaces: "characters", "icu" or "spaces".
    """

    needs: ClassVar[str] = "a target; nltk, and its WordNet for synonyms"

    alpha: Share = 0.9
    beta: Annotated[float, Field(ge=0)] = 3.0
    gamma: Share = 0.5
    synonyms: bool = False
    segmenter: Segmenter = "characters"

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The METEOR score."""
        from nltk.translate.meteor_score import single_meteor_score

        wordnet = _wordnet() if self.synonyms else None
        options = {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}
        scores = []
        pairs = self.pairs(samples)
        if self.synonyms:
            warn_of_other_scripts("meteor", "has synonyms of English", (b for _, b in pairs))
        for response, target in pairs:
            said, meant = self._words(response), self._words(target)
            names = _Synonyms(said, wordnet)
            scores.append(
                single_meteor_score(meant, said, stemmer=stemmer(), wordnet=names, **options)
            )
        return scores

    def _words(self, text: str) -> list[str]:
        return marked_words(fold(text), self.segmenter)


class _Synonyms:
    """WordNet as nltk's third stage needs it, which sees words after they were stemmed.

    For a stem it looks up the response's words of that stem. Their synonyms' stems come back as one
    synset, which is this object too.
    """

    def __init__(self, said: Sequence[str], wordnet: Any):
        self._wordnet, self._found = wordnet, list[_Lemma]()
        self._words: dict[str, set[str]] = {}
        for word in map(str.lower, said if wordnet else ()):
            self._words.setdefault(stemmer().stem(word), set()).add(word)

    def synsets(self, stem: str) -> list[_Synonyms]:
        self._found = [
            _Lemma(stemmer().stem(lemma.name()))
            for word in sorted(self._words.get(stem, ()))
            for synset in self._wordnet.synsets(word)
            for lemma in synset.lemmas()
        ]
        return [self]

    def lemmas(self) -> list[_Lemma]:
        return self._found


class _Lemma(str):
    def name(self) -> str:
        return str(self)


def _wordnet() -> Any:
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:  # nltk's own message has 20 lines
        raise ModelError(
            "nltk's WordNet is not here: run `python -m nltk.downloader wordnet`, "
            "or set synonyms to false"
        ) from None
    return wordnet
