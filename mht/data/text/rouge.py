"""ROUGE's words in any script, and the stemmer that goes with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mht.data.text.words import fold, nfc, words


@dataclass(frozen=True)
class Stemmer:
    """Porter's stemmer for English (nltk): words with other than ASCII letters stay as they are."""

    porter: Any

    def stem(self, word: str) -> str:
        """The stem of a word."""
        return self.porter.stem(word) if word.isascii() else word


@lru_cache
def stemmer() -> Stemmer:
    """The stemmer, made once."""
    from nltk.stem.porter import PorterStemmer

    return Stemmer(PorterStemmer())


@dataclass(frozen=True)
class RougeTokenizer:
    """A tokenizer for rouge-score, whose own keeps a-z and 0-9 only.

    Of a text in ASCII it gives the same words.

    Attributes:
        use_stemmer: English words of more than three letters are stemmed, in lower case.
        lowercase: upper and lower case count as equal.
        segmenter: what a word is in scripts without spaces.
    """

    use_stemmer: bool = True
    lowercase: bool = True
    segmenter: str = "characters"

    def tokenize(self, text: str) -> list[str]:
        """The words of a text.

        >>> RougeTokenizer().tokenize("Running dogs_2: я люблю 电影!")
        ['run', 'dog', '2', 'я', 'люблю', '电', '影']
        """
        text = fold(text) if self.lowercase or self.use_stemmer else nfc(text)
        found = words(text.replace("_", " "), self.segmenter)
        if not self.use_stemmer:
            return found
        return [stemmer().stem(word) if len(word) > 3 else word for word in found]
