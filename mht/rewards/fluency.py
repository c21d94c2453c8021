"""Rewards of fluency: perplexity under a causal language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from mht.errors import ModelError
from mht.rewards.base import UNIT, Device, Positive, Range, TextReward, reward
from mht.rewards.models import batches, load, pretrained, quiet, token_limit
from mht.types import Sample


@reward("perplexity")
class Perplexity(TextReward):
    """How well a causal language model predicts the text, by its mean loss in nats per token.

    ``loss = -mean(log p(token | those before it))``. Each token is scored once; the first one after
    the model's BOS token, or not at all where it has none. Longer texts are read in windows of
    ``max_length`` tokens that move on by ``stride``, so a token far into the text is predicted from
    at least ``max_length - stride`` tokens before it (and never from none). A text without a token
    to score gets the loss of knowing nothing, ``log(vocabulary)``.

    Attributes:
        model: folder or hub name of a causal language model.
        stride: tokens by which the window moves on.
        max_length: tokens in a window; null is the model's own limit, at most 1024.
        reward_mode: "exp_neg_loss" is exp(-loss) = 1 / perplexity, in (0, 1]; "neg_loss" is -loss;
            "raw" is the perplexity exp(loss), where lower is better: set ``invert``.
        device: "auto" (a GPU if there is one) or a torch device.
        batch_size: windows per forward pass, at most.
    """

    family: ClassVar[str] = "fluency"
    needs: ClassVar[str] = "a causal language model"
    score_range: ClassVar[Range] = UNIT
    range_note: ClassVar[str] = "neg_loss: up to 0; raw: from 1 on, low is better"

    model: str = "gpt2"
    stride: Positive = 512
    max_length: Positive | None = None
    reward_mode: Literal["raw", "neg_loss", "exp_neg_loss"] = "exp_neg_loss"
    device: Device = "auto"
    batch_size: Positive = 16

    @model_validator(mode="after")
    def _windows_leave_no_gap(self) -> Perplexity:
        if self.max_length is not None and self.stride > self.max_length:
            raise ValueError(
                f"stride must not be above max_length, got stride={self.stride} "
                f"max_length={self.max_length}"
            )
        if self.max_length == 1:
            raise ValueError("max_length must be at least 2: a token is predicted from another")
        return self

    def models(self) -> tuple[str, ...]:
        """The language model."""
        return (self.model,)

    def bounds(self) -> Range:
        """The range of the form that ``reward_mode`` asks for."""
        ends = {"raw": (1.0, math.inf), "neg_loss": (-math.inf, 0.0), "exp_neg_loss": UNIT}
        return ends[self.reward_mode]

    def direction(self) -> Literal["high", "low", "either"]:
        """Low for the raw perplexity."""
        return "low" if self.reward_mode == "raw" else "high"

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The losses in the form that ``reward_mode`` asks for."""
        model = causal_lm(self.model, self.device)
        length = self.max_length or min(model.limit or 1024, 1024)
        if model.limit and length > model.limit:
            raise ModelError(
                f"max_length {length} is above the {model.limit} tokens that model "
                f"{self.model!r} takes: set max_length to {model.limit} or less"
            )
        losses = model.losses(
            self.texts(samples), min(self.stride, length), length, self.batch_size
        )
        form = {"raw": math.exp, "neg_loss": lambda x: -x, "exp_neg_loss": lambda x: math.exp(-x)}
        return [form[self.reward_mode](loss) for loss in losses]


@dataclass(frozen=True)
class Window:
    """A stretch of one text's tokens, of which the last ``scored`` are to be scored."""

    text: int
    ids: list[int]
    scored: int


def windows(text: int, ids: list[int], stride: int, max_length: int) -> list[Window]:
    """The overlapping windows that score every token but the first, once each.

    >>> [(w.ids, w.scored) for w in windows(0, [1, 2, 3, 4, 5], stride=2, max_length=3)]
    [([1, 2, 3], 2), ([3, 4, 5], 2)]
    """
    found: list[Window] = []
    start, done = 0, 1
    while done < len(ids):
        end = min(start + max_length, len(ids))
        found.append(Window(text, ids[start:end], end - done))
        start, done = min(start + stride, end - 1), end  # at least one token to predict from
    return found


class CausalLM:
    """A causal language model with its tokenizer, for scoring texts."""

    def __init__(self, folder: str, device: str):
        from transformers import AutoModelForCausalLM

        self.tokenizer, self.model = pretrained(AutoModelForCausalLM, folder, device)
        self.device, self.limit = device, token_limit(self.tokenizer, self.model)
        self.vocabulary = self.model.config.get_text_config().vocab_size

    def losses(
        self, texts: Sequence[str], stride: int, max_length: int, batch_size: int
    ) -> list[float]:
        """Each text's mean loss in nats per token; identical texts are scored once."""
        unique = sorted(set(texts))
        todo = [
            window
            for i, ids in enumerate(self._ids(unique))
            for window in windows(i, ids, stride, max_length)
        ]
        sums, counts = [0.0] * len(unique), [0] * len(unique)
        for chosen in batches([len(w.ids) for w in todo], batch_size, tokens=4096):
            part = [todo[i] for i in chosen]
            for window, loss in zip(part, self._forward(part), strict=True):
                sums[window.text] += loss
                counts[window.text] += window.scored
        nothing = math.log(self.vocabulary)
        means = [s / n if n else nothing for s, n in zip(sums, counts, strict=True)]
        place = {text: i for i, text in enumerate(unique)}
        return [means[place[text]] for text in texts]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        with quiet():
            encoded = self.tokenizer(list(texts))["input_ids"]
        bos = self.tokenizer.bos_token_id
        return [ids if bos is None or ids[:1] == [bos] else [bos, *ids] for ids in encoded]

    def _forward(self, part: Sequence[Window]) -> list[float]:
        """The summed loss over each window's scored tokens."""
        import torch
        from torch.nn.functional import cross_entropy

        longest = max(len(w.ids) for w in part)
        ids = torch.zeros(len(part), longest, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        mask = torch.zeros_like(ids)
        for i, window in enumerate(part):
            n = len(window.ids)
            ids[i, :n], mask[i, :n] = torch.tensor(window.ids), 1
            labels[i, n - window.scored : n] = ids[i, n - window.scored : n]
        with torch.inference_mode():
            logits = self.model(
                input_ids=ids.to(self.device), attention_mask=mask.to(self.device)
            ).logits[:, :-1]
            losses = cross_entropy(
                logits.float().transpose(1, 2), labels[:, 1:].to(self.device), reduction="none"
            )
        return losses.double().sum(-1).tolist()


def causal_lm(name: str, device: str) -> Any:
    """The shared causal language model of a folder or hub name.

    Raises:
        ModelError: it can't be had, or is no causal language model.
    """
    return load(name, device, "causal language model", CausalLM)
