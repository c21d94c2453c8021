"""A sequence classifier that scores whole batches: what every reward on one shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mht.core.errors import ModelError
from mht.data.text.sample import Sample
from mht.data.text.truncation import MOST_TOKENS, end_note, fitted, token_limit, valid_text
from mht.rewards.models.shared import load, padded_batches, pretrained, quiet

Warn = Callable[[str], None]


class Classifier:
    """A sequence classifier with its tokenizer; scores each text once per batch.

    Attributes:
        labels: its own names of its outputs, in order.
        multi_label: its outputs are independent (sigmoid), not shares of one (softmax), as its
            config says: ``problem_type``, or ``function_to_apply`` (Detoxify's checkpoints).
        regression: its outputs are values, not probabilities, as ``problem_type`` says;
            transformers writes that into the config of each model that it trains on values.
    """

    def __init__(self, folder: str, device: str):
        from transformers import AutoModelForSequenceClassification

        self.take(*pretrained(AutoModelForSequenceClassification, folder, device), device)

    def take(self, tokenizer: Any, model: Any, device: str) -> None:
        """Score with this tokenizer and model from now on."""
        self.tokenizer, self.model = tokenizer, model
        config = self.model.config
        if config.pad_token_id is None:  # decoders look for their last token before it
            config.pad_token_id = self.tokenizer.pad_token_id
        self.device, self.limit = device, token_limit(self.model, self.tokenizer)
        self.labels = [str(config.id2label[i]) for i in range(config.num_labels)]
        self.multi_label = (
            config.problem_type == "multi_label_classification"
            or getattr(config, "function_to_apply", None) == "sigmoid"
        )
        self.regression = config.problem_type == "regression"
        self._last: tuple[Any, Any] = (None, None)

    def refuse_regression(self) -> None:
        """For a reward that needs probabilities.

        Raises:
            ModelError: the model's outputs are values.
        """
        if self.regression:
            raise ModelError(
                "the model has a regression head (problem_type in its config.json), whose output "
                "is no probability: use the type reward_model, or take a classifier"
            )

    def label(self, target: str) -> int:
        """The output with this label, in upper or lower case.

        Raises:
            ModelError: no such label; lists those there are.
        """
        names = [name.casefold() for name in self.labels]
        if target.casefold() not in names:
            raise ModelError(
                f"the model has no label {target!r}: set target to one of {', '.join(self.labels)}"
            )
        return names.index(target.casefold())

    def room(self, max_tokens: int | None, pair: bool = False) -> int:
        """The most tokens of a text or pair, special ones included.

        Raises:
            ModelError: max_tokens has no room for a text beside the special tokens.
        """
        limit = min((n for n in (max_tokens, self.limit) if n), default=MOST_TOKENS)
        special = self.tokenizer.num_special_tokens_to_add(pair=pair)
        if limit <= special:
            raise ModelError(
                f"max_tokens {max_tokens} leaves no room for a text beside the model's {special} "
                f"special tokens: set it higher, or to null"
            )
        return limit

    def logits(self, texts: Sequence[Any], batch_size: int, max_tokens: int | None = None) -> Any:
        """(B, labels) float32 on the CPU.

        Each different text is scored once, and the last batch is remembered, so that several
        components on one model (joy, anger...) share one forward pass. The same texts cut into
        batches of another size are scored anew, since their last digits may differ. A batch's
        scores must not depend on those before it.

        Args:
            texts: B texts, or pairs of texts.
            batch_size: texts per forward pass.
            max_tokens: longer texts are cut at their end, of pairs the longer text; None is the
                model's own limit, or 8192.

        Raises:
            ModelError: max_tokens has no room for a text beside the special tokens.
        """
        import torch

        if not texts:
            return torch.empty(0, len(self.labels))
        valid = [valid_text(text) for text in texts]
        unique = sorted(set(valid))
        key = (tuple(unique), batch_size, max_tokens)
        if self._last[0] != key:
            self._last = (key, self._forward(*key))
        place = {text: i for i, text in enumerate(unique)}
        return self._last[1][[place[text] for text in valid]]

    def _forward(self, texts: tuple[Any, ...], batch_size: int, max_tokens: int | None) -> Any:
        import torch

        encoded = self._encode(texts, max_tokens)
        rows = torch.empty(len(texts), len(self.labels))
        with torch.inference_mode(), quiet():
            parts = padded_batches(self.tokenizer, encoded, batch_size, self.device)
            for chosen, part in parts:
                rows[chosen] = self.model(**part).logits.float().cpu()
        return rows

    def _encode(self, texts: Sequence[Any], max_tokens: int | None) -> dict[str, Any]:
        first, second = list(texts), None
        if isinstance(texts[0], tuple):
            first, second = [a for a, _ in texts], [b for _, b in texts]
        limit = self.room(max_tokens, second is not None)
        with quiet():
            if second is not None:
                first, second = self._openings(first, limit), self._openings(second, limit)
            encoded = self.tokenizer(first, second, truncation=True, max_length=limit)
        stand_in = {"input_ids": self._nothing, "attention_mask": 1}
        return {
            key: [value or [stand_in.get(key, 0)] for value in values]
            for key, values in encoded.items()
        }

    def _openings(self, texts: Sequence[str], limit: int) -> list[str]:
        """The texts up to their first ``2 * limit`` tokens; of a pair at most ``limit`` are kept.

        When a fast tokenizer cuts a pair, it also builds what it cuts off, in every combination of
        both sides. That takes minutes for two texts of 100,000 characters.
        """
        long = [i for i, text in enumerate(texts) if len(text) > 2 * limit]
        shorter = list(texts)
        if long and self.tokenizer.is_fast:
            offsets = self.tokenizer(
                [texts[i] for i in long],
                add_special_tokens=False,
                truncation=True,
                max_length=2 * limit,
                return_offsets_mapping=True,
            )["offset_mapping"]
            for i, spans in zip(long, offsets, strict=True):
                shorter[i] = texts[i][: spans[-1][1]] if spans else ""
        return shorter

    @property
    def _nothing(self) -> int:
        """The token for an empty text, where the tokenizer adds no special tokens."""
        ids = (self.tokenizer.eos_token_id, self.tokenizer.bos_token_id, 0)
        return next(i for i in ids if i is not None)


def probabilities(logits: Any, independent: bool) -> Any:
    """(B, labels) probabilities: each by itself (sigmoid), or shares of one (softmax)."""
    return logits.sigmoid() if independent else logits.softmax(-1)


def texts_read(
    warn: Warn, model: Classifier, samples: Sequence[Sample], text: str, max_tokens: int | None
) -> list[Any]:
    """What the reward's model reads of each sample; a warning, once, where that is not all of it.

    Args:
        warn: gives the warning.
        model: reads.
        samples: prompts and responses.
        text: "response", "full", "pair" or "chat"; how each is cut: `truncation.fitted`.
        max_tokens: of a text; None is the model's own limit, or 8192.

    Raises:
        ModelError: max_tokens has no room for a text.
    """
    with quiet():
        found = fitted(samples, text, model.tokenizer, model.room(max_tokens, text == "pair"))
    if found.note:
        warn(found.note)
    return found.texts


def warn_of_long(
    warn: Warn, model: Classifier, pairs: Sequence[tuple[str, str]], max_tokens: int | None
) -> None:
    """A warning, once, where a pair is longer than the reward's model reads."""
    with quiet():
        room = model.room(max_tokens, pair=True)
        for note in end_note(pairs, model.tokenizer, room, "two texts together are"):
            warn(note)


def classifier(name: str, device: str) -> Classifier:
    """The shared sequence classifier of a folder or hub name.

    Raises:
        ModelError: it can't be had, or is no classifier.
    """
    return load(name, device, "sequence classifier", Classifier)
