"""A reward of trying what was seldom tried: exploration."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from mht.core.bounds import Segmenter
from mht.core.errors import RewardError
from mht.data.text.sample import Sample
from mht.rewards.base import UNIT, Positive, Range, State, TextReward, reward
from mht.rewards.text.ngrams import ngrams


@reward("exploration")
class Exploration(TextReward):
    """A count-based bonus: ``1 / sqrt(N)`` of the states that a text visits, in (0, 1].

    N is how often a state was visited while training, this visit included (Tang et al. 2017,
    arXiv:1611.04717).

    With "ngrams" each different n-gram of the text is a state, and the score is the mean of their
    bonuses. With "simhash" the text is one state, the SimHash of its n-grams (Charikar 2002,
    doi:10.1145/509907.509965). Texts that share most of their n-grams share a state. An empty text
    is a state too.

    The responses of one batch are scored before any of them counts, so equal ones get equal scores.
    Evaluation counts nothing. Give this bonus a small weight beside other rewards: it fades as
    training goes on.

    Attributes:
        method: "ngrams" or "simhash".
        ngram: words per n-gram; a shorter text is one n-gram.
        bits: there are ``2^bits`` states, and the saved table grows no further; two n-grams that
            share a state share its count. For "simhash", more bits tell more texts apart.
        segmenter: what a word is in scripts without spaces: "characters", "icu" or "spaces".
    """

    family: ClassVar[str] = "diversity"
    needs: ClassVar[str] = "training: it counts what it has scored"
    score_range: ClassVar[Range] = UNIT

    method: Literal["ngrams", "simhash"] = "ngrams"
    ngram: Positive = 2
    bits: Annotated[int, Field(ge=1, le=24)] = 18
    segmenter: Segmenter = "characters"

    _visits: Counter[int] = PrivateAttr(default_factory=Counter)

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """None: the visits so far have a say."""
        return None

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The mean bonus of each text's states."""
        return [
            fmean(1 / math.sqrt(1 + self._visits[state]) for state in sorted(self._states(text)))
            for text in self.texts(samples)
        ]

    def observe(self, samples: Sequence[Sample], scores: Sequence[float]) -> None:
        """Count a visit to each state of each text."""
        for text in self.texts(samples):
            self._visits.update(self._states(text))

    def _states(self, text: str) -> set[int]:
        hashes = [_hash(gram) for gram in ngrams(text, self.ngram, self.segmenter)]
        if self.method == "simhash":
            return {simhash(hashes, self.bits)}
        return {value >> (64 - self.bits) for value in hashes or [0]}

    def get_state(self) -> State:
        """The visits of each state."""
        return {"visits": {str(state): count for state, count in sorted(self._visits.items())}}

    def set_state(self, state: State) -> None:
        """Put the visits back.

        Raises:
            RewardError: this is not what `get_state` gives.
        """
        visits: Any = state.get("visits")
        if not isinstance(visits, dict) or not all(_is_count(*item) for item in visits.items()):
            raise RewardError(f"the saved state of exploration has no visits: got {state!r:.80}")
        self._visits = Counter({int(key): count for key, count in visits.items()})


def simhash(hashes: Sequence[int], bits: int) -> int:
    """The SimHash of a text from the 64-bit hashes of its n-grams.

    Bit i is 1 where more of the hashes have a 1 there than a 0; 0 for no hashes at all.

    >>> bin(simhash([0b110 << 61, 0b100 << 61, 0b001 << 61], 3))
    '0b100'
    """
    code = 0
    for i in range(63, 63 - bits, -1):
        ones = sum(value >> i & 1 for value in hashes)
        code = code << 1 | (2 * ones > len(hashes))
    return code


def _hash(gram: tuple[str, ...]) -> int:
    """64 bits that are the same in every process."""
    data = "\n".join(gram).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _is_count(key: Any, count: Any) -> bool:
    return isinstance(key, str) and key.isdecimal() and type(count) is int and count > 0
