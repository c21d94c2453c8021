"""A sequence classifier that scores whole batches: what sentiment, reward_model and NLI share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mht.errors import ModelError
from mht.rewards.models import batches, load, pretrained, quiet, token_limit


class Classifier:
    """A sequence classifier with its tokenizer; scores each text once per batch.

    Attributes:
        labels: its own names of its outputs, in order.
        multi_label: its outputs are independent (sigmoid), not shares of one (softmax).
    """

    def __init__(self, folder: str, device: str):
        from transformers import AutoModelForSequenceClassification

        self.tokenizer, self.model = pretrained(AutoModelForSequenceClassification, folder, device)
        config = self.model.config
        if config.pad_token_id is None:  # decoders look for their last token before it
            config.pad_token_id = self.tokenizer.pad_token_id
        self.device, self.limit = device, token_limit(self.tokenizer, self.model)
        self.labels = [str(config.id2label[i]) for i in range(config.num_labels)]
        self.multi_label = config.problem_type == "multi_label_classification"
        self._last: tuple[Any, Any] = (None, None)

    def label(self, target: str) -> int:
        """The output with this label, upper and lower case alike.

        Raises:
            ModelError: no such label; lists those there are.
        """
        names = [name.casefold() for name in self.labels]
        if target.casefold() not in names:
            raise ModelError(
                f"the model has no label {target!r}: set target to one of {', '.join(self.labels)}"
            )
        return names.index(target.casefold())

    def logits(self, texts: Sequence[Any], batch_size: int, max_tokens: int | None = None) -> Any:
        """(B, labels) float32 on the CPU.

        The last batch is remembered, so that several components on one model (joy, anger...)
        share one forward pass.

        Args:
            texts: B texts, or pairs of texts.
            batch_size: texts per forward pass.
            max_tokens: longer texts are cut at their end; None is the model's own limit.
        """
        key = (tuple(texts), batch_size, max_tokens)
        if self._last[0] != key:
            self._last = (key, self._forward(*key))
        return self._last[1]

    def _forward(self, texts: tuple[Any, ...], batch_size: int, max_tokens: int | None) -> Any:
        import torch

        unique = sorted(set(texts))
        limit = min((n for n in (max_tokens, self.limit) if n), default=None)
        encoded = self._encode(unique, limit)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        size = batch_size if self.tokenizer.pad_token is not None else 1
        rows = torch.empty(len(unique), len(self.labels))
        with torch.inference_mode(), quiet():
            for chosen in batches(lengths, size):
                part = {key: [values[i] for i in chosen] for key, values in encoded.items()}
                if size > 1:
                    part = self._pad(part)
                else:
                    part = {k: torch.tensor(v, device=self.device) for k, v in part.items()}
                rows[chosen] = self.model(**part).logits.float().cpu()
        place = {text: i for i, text in enumerate(unique)}
        return rows[[place[text] for text in texts]]

    def _encode(self, texts: Sequence[Any], limit: int | None) -> dict[str, Any]:
        first, second = list(texts), None
        if isinstance(texts[0], tuple):
            first, second = [a for a, _ in texts], [b for _, b in texts]
        with quiet():
            encoded = self.tokenizer(first, second, truncation=limit is not None, max_length=limit)
        stand_in = {"input_ids": self._nothing, "attention_mask": 1}
        return {
            key: [value or [stand_in.get(key, 0)] for value in values]
            for key, values in encoded.items()
        }

    def _pad(self, part: dict[str, Any]) -> Any:
        """On the right: decoders count positions from the first token."""
        return self.tokenizer.pad(part, padding_side="right", return_tensors="pt").to(self.device)

    @property
    def _nothing(self) -> int:
        """The token for an empty text, where the tokenizer adds no special tokens."""
        ids = (self.tokenizer.eos_token_id, self.tokenizer.bos_token_id, 0)
        return next(i for i in ids if i is not None)


def classifier(name: str, device: str) -> Classifier:
    """The shared sequence classifier of a folder or hub name.

    Raises:
        ModelError: it can't be had, or is no classifier.
    """
    return load(name, device, "sequence classifier", Classifier)
