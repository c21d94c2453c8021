"""A reward of not repeating the training set: novelty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from mht.core.bounds import Segmenter
from mht.core.errors import DataError, ModelError
from mht.data.text.sample import Sample
from mht.data.text.words import chunks, fold
from mht.rewards.base import UNIT, Positive, Range, TextReward, reward
from mht.rewards.text.corpus import Unit, files, texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

Stamps = tuple[tuple[str, int, int], ...]


@reward("novelty")
class Novelty(TextReward):
    """How much of the text is not in a corpus, such as the training set, in [0, 1].

    "ngrams": the share of its different n-grams that the corpus does not have (after See et al.
    2017, arXiv:1704.04368).

    "longest_copy": 1 - the words of the longest stretch that the corpus has too, over the text's
    words. A stretch of fewer words than `ngram` is no copy.

    A text of fewer words than `ngram` is taken as a whole; an empty one gets 0. Words are in lower
    case and stand between white space, as in `diversity`. A segmenter divides those of scripts
    without spaces.

    Attributes:
        corpus: a file, a folder with files, or a list of such: .txt and .md, .jsonl and .parquet
            with a column; for example data/prepared/train.parquet. Read on first use, and again
            when a file has changed.
        column: of .jsonl and .parquet.
        unit: what one text of a .txt or .md file is, "file", "paragraph" or "line"; nothing is a
            copy across the end of a text.
        method: "ngrams" or "longest_copy".
        ngram: words per n-gram, or of the shortest copy.
        segmenter: what a word is in scripts without spaces: "characters", "icu" or "spaces".
    """

    family: ClassVar[str] = "diversity"
    needs: ClassVar[str] = "a corpus"
    score_range: ClassVar[Range] = UNIT
    example: ClassVar[Mapping[str, Any] | None] = {"corpus": "data/prepared/train.parquet"}

    corpus: Annotated[list[str], Field(min_length=1)] | str
    column: str = "target"
    unit: Unit = "file"
    method: Literal["ngrams", "longest_copy"] = "ngrams"
    ngram: Positive = 4
    segmenter: Segmenter = "characters"

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The share of what is new."""
        try:
            index = _index(self._stamps(), self.column, self.unit, self.segmenter)
        except DataError as error:  # wrong for every text: it stops, whatever on_error says
            raise ModelError(f"corpus: {error}") from None
        score = index.new_share if self.method == "ngrams" else index.uncopied
        texts = (chunks(fold(text), self.segmenter) for text in self.texts(samples))
        return [score(words, self.ngram) for words in texts]

    def _stamps(self) -> Stamps:
        paths = [self.corpus] if isinstance(self.corpus, str) else self.corpus
        return tuple(
            (str(file), file.stat().st_mtime_ns, file.stat().st_size)
            for file in chain.from_iterable(map(files, paths))
        )


class Index:
    """Where which n-grams of words are in a corpus.

    Args:
        texts: the corpus.
        segmenter: what a word is in scripts without spaces.
    """

    def __init__(self, texts: Iterable[str], segmenter: str = "characters"):
        import numpy as np

        self._ids: dict[str, int] = {}
        found: list[int] = []
        for text in texts:
            words = chunks(fold(text), segmenter)
            found += [self._ids.setdefault(word, len(self._ids) + 1) for word in words]
            found.append(0)  # no n-gram goes over the end of a text
        self._words = np.array(found, dtype=np.uint64)
        self._places = lru_cache(maxsize=8)(self._find_places)

    def __len__(self) -> int:
        """How many different words the corpus has."""
        return len(self._ids)

    def new_share(self, words: Sequence[str], n: int) -> float:
        """The share of the different n-grams of a text that are not in the corpus."""
        import numpy as np

        if not words:
            return 0.0
        known, _ = self._places(min(n, len(words)))
        _, there = _look_up(known, np.unique(self._hashes(words, n)))
        return 1 - float(np.mean(there))

    def uncopied(self, words: Sequence[str], n: int) -> float:
        """1 - the longest stretch of n words or more that is in the corpus, over all words."""
        if not words:
            return 0.0
        return 1 - self.longest_copy(words, n) / len(words)

    def longest_copy(self, words: Sequence[str], n: int) -> int:
        """The words of that stretch; 0 for none of n words or more."""
        import numpy as np

        n = min(n, len(words))
        hashes, order = self._places(n)
        wanted = self._hashes(words, n)
        first = np.searchsorted(hashes, wanted, side="left")
        last = np.searchsorted(hashes, wanted, side="right")
        before, runs, longest = order[:0], order[:0], 0
        for a, b in zip(first, last, strict=True):
            places = order[a:b]  # where in the corpus this n-gram starts
            at, goes_on = _look_up(before, places - 1)  # the n-gram before it was copied there, too
            length = np.ones_like(places)
            length[goes_on] += runs[at[goes_on]]
            longest = max(longest, int(length.max(initial=0)))
            before, runs = places, length
        return longest + n - 1 if longest else 0

    def _find_places(self, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """The hashes of the corpus's n-grams in order, and where each starts; equals in order."""
        import numpy as np

        hashes = _rolling(self._words, n)
        ends = np.convolve(self._words == 0, np.ones(n, dtype=np.int64), mode="valid")
        inside = np.flatnonzero(ends[: len(hashes)] == 0)
        order = inside[np.argsort(hashes[inside], kind="stable")]
        return hashes[order], order

    def _hashes(self, words: Sequence[str], n: int) -> NDArray[Any]:
        import numpy as np

        new: dict[str, int] = {}  # words that the corpus has not
        ids = [
            self._ids.get(word) or new.setdefault(word, len(self._ids) + 1 + len(new))
            for word in words
        ]
        return _rolling(np.array(ids, dtype=np.uint64), min(n, len(words)))


def _look_up(known: NDArray[Any], wanted: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Where in a sorted array the wanted numbers are, and which of them are there at all."""
    import numpy as np

    if not len(known):
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=bool)
    at = np.searchsorted(known, wanted)
    at[at == len(known)] = 0
    return at, known[at] == wanted


def _rolling(ids: NDArray[Any], n: int) -> NDArray[Any]:
    """A 64-bit hash of every n neighbours."""
    import numpy as np

    count = max(0, len(ids) - n + 1)
    hashes = np.zeros(count, dtype=np.uint64)
    for i in range(n):
        hashes = _mixed(hashes + ids[i : i + count])
    return hashes


def _mixed(x: NDArray[Any]) -> NDArray[Any]:
    """Different numbers for different ones, all over the 64 bits (the steps of SplitMix64)."""
    import numpy as np

    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@lru_cache(maxsize=4)
def _index(stamps: Stamps, column: str, unit: Unit, segmenter: str) -> Index:
    found = (texts(Path(path), unit, column) for path, _, _ in stamps)
    index = Index((text for text, _ in chain.from_iterable(found)), segmenter)
    if not len(index):
        raise DataError(f"no word in {', '.join(path for path, _, _ in stamps)}")
    return index
