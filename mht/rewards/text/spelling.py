"""A reward of correct language: spelling_grammar."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from statistics import fmean
from typing import ClassVar, Literal

import regex
from pydantic import Field

from mht.core.errors import MissingPackage, ModelError
from mht.data.text.sample import Sample
from mht.data.text.sentences import sentences
from mht.data.text.special import broken_up
from mht.data.text.truncation import valid_unicode
from mht.data.text.words import nfc, warn_of_other_scripts
from mht.rewards.base import UNIT, Device, Positive, Range, TextReward, reward
from mht.rewards.models.sequence_classifier import Classifier, classifier, probabilities

LETTER, SIGN = r"[\p{L}\p{M}]", r"[\p{L}\p{M}\p{N}]"
JOINED = rf"{LETTER}+(?:\u200c{LETTER}+)*"  # Persian has words with a joiner in them
WORD = regex.compile(rf"(?<!{SIGN}){JOINED}(?:'{JOINED})*(?!{SIGN})")
VOWEL_SIGNS = regex.compile(r"[\u064b-\u0652\u0640]")  # Arabic dictionaries are without them
SCRIPTS = {"ar": "Arabic", "fa": "Arabic", "ru": "Cyrillic"}  # others are Latin
CLASSIFIER = "textattack/roberta-base-CoLA@refs/pr/37"
ACCEPTABLE = ("acceptable", "grammatical", "correct")


@reward("spelling_grammar")
class SpellingGrammar(TextReward):
    """How correctly a text is spelled, or how acceptable a classifier finds its grammar, in [0, 1].

    "spelling": the share of its words that are in a dictionary (pyspellchecker). Case does not
    count, nor does a possessive 's. What has digits is no word.

    "acceptability": the probability of a classifier's acceptable label, as the mean of the text's
    sentences. Such classifiers are trained on single English sentences, as in CoLA (Warstadt et al.
    2019, arXiv:1805.12471).

    "both": the mean of the two. A text without a word gets 0.

    Attributes:
        method: "spelling", "acceptability" or "both".
        language: of the dictionary.
        allowed: more words that count as known, such as names.
        model: folder or hub name of a sequence classifier; the default is the hub's conversion of
            it to safetensors.
        label: the acceptable label; null looks for one called acceptable, grammatical or correct.
            Where the labels have no names it takes LABEL_1, as CoLA numbers them.
        device: "auto" (a GPU if there is one) or a torch device.
        batch_size: sentences per forward pass.
        max_tokens: longer sentences are cut for the classifier; null is its own limit.
    """

    family: ClassVar[str] = "fluency"
    needs: ClassVar[str] = "pyspellchecker; a CoLA classifier, for acceptability"
    score_range: ClassVar[Range] = UNIT

    method: Literal["spelling", "acceptability", "both"] = "spelling"
    language: Literal["ar", "de", "en", "es", "eu", "fa", "fr", "it", "lv", "nl", "pt", "ru"] = "en"
    allowed: list[str] = Field(default_factory=list)
    model: str = CLASSIFIER
    label: str | None = None
    device: Device = "auto"
    batch_size: Positive = 32
    max_tokens: Positive | None = None

    def models(self) -> tuple[str, ...]:
        """The classifier, where it is used."""
        return () if self.method == "spelling" else (self.model,)

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The share of known words, the probability, or their mean."""
        texts = self.texts(samples)
        self._warn(texts)
        if self.method == "spelling":
            return self._spelling(texts)
        acceptable = self._acceptability(texts)
        if self.method == "acceptability":
            return acceptable
        return [(a + b) / 2 for a, b in zip(self._spelling(texts), acceptable, strict=True)]

    def _warn(self, texts: Sequence[str]) -> None:
        if self.method != "acceptability":
            script = SCRIPTS.get(self.language, "Latin")
            what = f"has a dictionary of the language {self.language!r}"
            warn_of_other_scripts("spelling_grammar", what, texts, script)
        if self.method != "spelling" and self.model == CLASSIFIER:
            warn_of_other_scripts("spelling_grammar", "has a classifier of English", texts)

    def _spelling(self, texts: Sequence[str]) -> list[float]:
        known = dictionary(self.language, tuple(self.allowed))
        return [known_share(words(text), known) for text in texts]

    def _acceptability(self, texts: Sequence[str]) -> list[float]:
        model = classifier(self.model, self.device)
        model.refuse_regression()
        label = self._acceptable(model)
        parts = [sentences(valid_unicode(text)) if words(text) else [] for text in texts]
        flat = [broken_up(sentence, model.tokenizer) for part in parts for sentence in part]
        if not flat:
            return [0.0] * len(texts)
        logits = model.logits(flat, self.batch_size, self.max_tokens)
        shares = probabilities(logits, model.multi_label)
        each = iter(shares[:, label].tolist())
        return [fmean(islice(each, len(part))) if part else 0.0 for part in parts]

    def _acceptable(self, model: Classifier) -> int:
        names = [name.casefold() for name in model.labels]
        wanted = ACCEPTABLE if self.label is None else (self.label.casefold(),)
        found = [i for i, name in enumerate(names) if name in wanted]
        if self.label is None and names == ["label_0", "label_1"]:
            found = [1]
        if len(found) != 1 or len(names) < 2:
            raise ModelError(
                f"which label of model {self.model!r} is the acceptable one is not clear: set "
                f"label to one of {', '.join(model.labels)}"
            )
        return found[0]


def plain(text: str) -> str:
    """In lower case, with one form of each accented letter and of the apostrophe."""
    return VOWEL_SIGNS.sub("", nfc(text).replace("\u2019", "'").lower())


def words(text: str) -> list[str]:
    """The words of a text in `plain` form.

    >>> words("Don't say 3D, he\u2019d said.")
    ["don't", 'say', "he'd", 'said']
    """
    return WORD.findall(plain(text))


def known_share(said: Sequence[str], known: frozenset[str]) -> float:
    """The share of words in ``known``, with or without a possessive 's; 0 of no words.

    >>> known_share(["the", "dog's", "teh"], frozenset({"the", "dog"})) == 2 / 3
    True
    """
    right = sum(word in known or word.removesuffix("'s") in known for word in said)
    return right / len(said) if said else 0.0


@lru_cache(maxsize=4)
def dictionary(language: str, more: tuple[str, ...] = ()) -> frozenset[str]:
    """The words of a language (pyspellchecker) and some more, in `plain` form.

    Raises:
        MissingPackage: pyspellchecker is not installed.
    """
    try:
        from spellchecker import SpellChecker
    except ImportError:
        raise MissingPackage("pyspellchecker", "spelling_grammar") from None
    found = SpellChecker(language=language).word_frequency.dictionary
    return frozenset(map(plain, [*found, *more]))
