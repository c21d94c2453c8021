"""A reward of names and numbers that the source has too: entity_consistency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import regex
from pydantic import Field

from mht.core.errors import ModelError
from mht.data.text.sample import Sample
from mht.data.text.sentences import sentences
from mht.data.text.special import broken_up
from mht.data.text.truncation import MOST_TOKENS, end_note, token_limit, valid_unicode
from mht.data.text.words import CASED, CLUSTER, SPACED, fold, nfc, warn_of_other_scripts
from mht.rewards.base import UNIT, Positive, Range, TargetReward, reward
from mht.rewards.learned.model_reward import ModelReward
from mht.rewards.models.shared import load, padded_batches, pretrained, quiet

NUMBER = r"\d+(?:[.,:\u066b\u066c]\d+)*"
TOKEN = regex.compile(rf"{NUMBER}|{CLUSTER}|{SPACED}", regex.VERSION1)
CAPITALISED = r"\p{Lu}[\p{L}\p{M}\p{N}]+(?:-[\p{L}\p{M}\p{N}]+)*"


@reward("entity_consistency")
class EntityConsistency(TargetReward, ModelReward):
    """How many of the response's names and numbers the source has too, in [0, 1].

    The precision-source and the precision, recall and F1 against the target of Nan et al. 2021
    (arXiv:2102.09130), by the different entities of a text. An entity counts as found where the
    other text has its words in this order, in upper or lower case. The method need not take them
    for an entity there.

    "pattern" takes as entities all numbers, and runs of capitalised words of two letters or more.
    The first word of a sentence counts only where it has another capital letter (NASA). It finds no
    names in scripts without capitals, and takes nouns in German for names.

    Attributes:
        method: "model" or "pattern".
        source: where the entities should be: "target", "prompt", or "both", in either of them.
        mode: "precision": of the response's entities those in the source; "recall": of the
            source's those in the response; "f1": the harmonic mean of the two.
        nothing: the score where there is no entity to look for; for "f1" in neither text, while
            a single one without gives 0.
        model: folder or hub name of a token classifier with the labels O, B-..., I-....
        max_tokens: how many tokens of a text are searched; null is the model's own limit, or 8192.
    """

    family: ClassVar[str] = "surface"
    needs: ClassVar[str] = "a target or prompt; a token classifier, or method: pattern"
    score_range: ClassVar[Range] = UNIT

    method: Literal["model", "pattern"] = "model"
    source: Literal["target", "prompt", "both"] = "target"
    mode: Literal["precision", "recall", "f1"] = "precision"
    nothing: Annotated[float, Field(ge=0, le=1)] = 1.0
    model: str = "dslim/bert-base-NER"
    max_tokens: Positive | None = None

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """Response and source."""
        return sample.response, self._source(sample)

    def models(self) -> tuple[str, ...]:
        """The token classifier, where it is used."""
        return (self.model,) if self.method == "model" else ()

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The precision, recall or F1."""
        pairs = self.pairs(samples)
        wanted = {
            text
            for response, source in pairs
            for text, mode in ((response, "precision"), (source, "recall"))
            if self.mode in (mode, "f1")
        }
        entities = self._entities(sorted(wanted))
        return [self._of(response, source, entities) for response, source in pairs]

    def pairs(self, samples: Sequence[Sample]) -> list[tuple[str, str]]:
        """(response, source) of each sample; warns when targets are asked for and none is there."""
        if self.source == "target":
            return super().pairs(samples)
        return [(s.response, self._source(s)) for s in samples]

    def _source(self, sample: Sample) -> str:
        if self.source == "both":
            return f"{sample.prompt}\n{sample.target}"
        return sample.target if self.source == "target" else sample.prompt

    def _of(self, response: str, source: str, entities: dict[str, set[str]]) -> float:
        if self.mode == "precision":
            return share_found(entities[response], source, self.nothing)
        if self.mode == "recall":
            return share_found(entities[source], response, self.nothing)
        if not entities[response] and not entities[source]:
            return self.nothing
        precision = share_found(entities[response], source, 0.0)
        recall = share_found(entities[source], response, 0.0)
        return 2 * precision * recall / (precision + recall) if precision and recall else 0.0

    def _entities(self, texts: Sequence[str]) -> dict[str, set[str]]:
        """The different entities of each text, in `plain` form."""
        if self.method == "pattern":
            what = "with method: pattern finds names by their capitals"
            warn_of_other_scripts("entity_consistency", what, texts, CASED)
            found = [pattern_entities(text) for text in texts]
        else:
            tagger = load(self.model, self.device, "token classifier", Tagger)
            clean = [broken_up(valid_unicode(text), tagger.tokenizer) for text in texts]
            room = min((n for n in (self.max_tokens, tagger.limit) if n), default=MOST_TOKENS)
            for note in end_note(clean, tagger.tokenizer, room):
                self.warn_once(note)
            found = tagger.entities(clean, self.batch_size, self.max_tokens)
        return {
            text: {words for words in map(plain, names) if words}
            for text, names in zip(texts, found, strict=True)
        }


def share_found(entities: set[str], text: str, nothing: float) -> float:
    """The share of entities in `plain` form that stand in a text as whole words.

    >>> share_found({"new york", "rome"}, "In New York.", 1.0)
    0.5
    """
    there = f" {plain(text)} "
    return sum(f" {e} " in there for e in entities) / len(entities) if entities else nothing


def plain(text: str) -> str:
    """The words of a text in one case with single spaces; a Chinese character is a word.

    A number is one with its stops.

    >>> plain("The  Eiffel-Tower: 330.5 m")
    'the eiffel tower 330.5 m'
    """
    return " ".join(TOKEN.findall(fold(text).replace("_", " ")))


def pattern_entities(text: str) -> list[str]:
    """Numbers, and runs of capitalised words, less the first word of a sentence.

    >>> pattern_entities("The film by Jane Campion won 3 Oscars. NASA said nothing.")
    ['Jane Campion', '3', 'Oscars', 'NASA']
    """
    found = []
    for sentence in sentences(nfc(text)):
        opening = next(i for i, c in enumerate(sentence) if c.isalnum())
        for match in regex.finditer(rf"{CAPITALISED}(?: {CAPITALISED})*|{NUMBER}", sentence):
            words = match[0].split(" ")
            if match.start() == opening and words[0].istitle():
                words = words[1:]
            found += [" ".join(words)] if words else []
    return found


class Tagger:
    """A token classifier with its tokenizer, for the entities of whole batches of texts."""

    def __init__(self, folder: str, device: str):
        from transformers import AutoModelForTokenClassification

        self.tokenizer, self.model = pretrained(AutoModelForTokenClassification, folder, device)
        config = self.model.config
        self.device, self.limit = device, token_limit(self.model, self.tokenizer)
        self.labels = [str(config.id2label[i]) for i in range(config.num_labels)]
        if "O" not in self.labels or not self.tokenizer.is_fast:
            raise ModelError(
                f"the model in {folder} finds no entities: its labels are "
                f"{', '.join(self.labels)}, not such as O, B-PER, I-PER, or it has no "
                "tokenizer.json"
            )

    def entities(
        self, texts: Sequence[str], batch_size: int, max_tokens: int | None = None
    ) -> list[list[str]]:
        """The entities of each text, as they are written there."""
        import torch

        limit = min((n for n in (max_tokens, self.limit) if n), default=MOST_TOKENS)
        found: list[list[str]] = [[] for _ in texts]
        filled = [i for i, text in enumerate(texts) if text.strip()]
        if not filled:
            return found
        with quiet():
            encoded = self.tokenizer(
                [texts[i] for i in filled],
                truncation=True,
                max_length=limit,
                return_offsets_mapping=True,
            )
        offsets = encoded.pop("offset_mapping")
        lengths = [len(ids) for ids in encoded["input_ids"]]
        with torch.inference_mode(), quiet():
            parts = padded_batches(self.tokenizer, encoded, batch_size, self.device)
            for chosen, part in parts:
                best = self.model(**part).logits.argmax(-1).tolist()
                for row, i in zip(best, chosen, strict=True):
                    names = [self.labels[k] for k in row[: lengths[i]]]
                    ends = spans(names, encoded.word_ids(i), offsets[i])
                    found[filled[i]] = [texts[filled[i]][a:b].strip() for a, b in ends]
        return found


def spans(
    labels: Sequence[str], words: Sequence[int | None], offsets: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Where the entities of a text start and end, in characters.

    A word has the label of its first token. An entity goes on in the next word of the same kind,
    unless that begins a new one (B-, S- or U-).

    Args:
        labels: of each token: O, B-kind, I-kind, or a kind alone.
        words: each token's word, None for special tokens.
        offsets: each token's first character and the one after its last.

    >>> spans(["B-PER", "I-PER", "O"], [0, 1, 2], [(0, 4), (5, 12), (13, 16)])
    [(0, 12)]
    """
    found: list[tuple[int, int]] = []
    kind = word = None
    for label, at, (start, end) in zip(labels, words, offsets, strict=True):
        if at is None:
            continue
        if at == word:  # a later token of the same word
            if kind:
                found[-1] = (found[-1][0], end)
            continue
        word = at
        prefix, own = (label[0], label[2:]) if label[1:2] == "-" else ("", label)
        if label == "O":
            kind = None
        elif own == kind and prefix not in ("B", "S", "U"):
            found[-1] = (found[-1][0], end)
        else:
            kind = own
            found.append((start, end))
    return found
