"""Rewards of fluency under a causal language model: perplexity, fluency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from mht.core.errors import ModelError
from mht.data.text.sample import Sample
from mht.rewards.base import UNIT, Positive, Range, TextReward, reward
from mht.rewards.learned.model_reward import ModelReward
from mht.rewards.models.causal_lm import CausalLM, Loss, causal_lm

UNSEEN = 0.01  # share of the unigram distribution that is spread over the whole vocabulary
BITS_OF_NOTHING = 8.0  # per byte, for who knows nothing


class LanguageModelReward(TextReward, ModelReward):
    """A reward of a text's loss under a causal language model, read in windows.

    Each token is scored once; the first one after the model's BOS token, or not at all where it has
    none. Longer texts are read in windows of ``max_length`` tokens that move on by ``stride``. So a
    token far into the text is predicted from at least ``max_length - stride`` tokens before it, and
    never from none.

    Attributes:
        model: folder or hub name of a causal language model.
        stride: tokens by which the window moves on.
        max_length: tokens in a window; null is the model's own limit, at most 1024.
        batch_size: windows per forward pass, at most.
    """

    family: ClassVar[str] = "fluency"
    needs: ClassVar[str] = "a causal language model"
    example: ClassVar[Mapping[str, Any] | None] = {"model": "models/base"}

    model: str = "gpt2"
    stride: Positive = 512
    max_length: Positive | None = None
    batch_size: Positive = 16

    @model_validator(mode="after")
    def _windows_leave_no_gap(self) -> LanguageModelReward:
        if self.max_length is not None and self.stride > self.max_length:
            raise ValueError(
                f"stride must not be above max_length, got stride={self.stride} "
                f"max_length={self.max_length}"
            )
        if self.max_length == 1:
            raise ValueError("max_length must be at least 2: a token is predicted from another")
        return self

    def losses(self, samples: Sequence[Sample]) -> tuple[CausalLM, list[Loss]]:
        """The model, and the loss of each sample's text under it."""
        model = causal_lm(self.model, self.device)
        length = self.max_length or min(model.limit or 1024, 1024)
        if model.limit and length > model.limit:
            raise ModelError(
                f"max_length {length} is above the {model.limit} tokens that model "
                f"{self.model!r} takes: set max_length to {model.limit} or less"
            )
        stride = min(self.stride, length)
        return model, model.losses(self.texts(samples), stride, length, self.batch_size)


@reward("perplexity")
class Perplexity(LanguageModelReward):
    """How well a causal language model predicts the text, by its mean loss in nats per token.

    ``loss = -mean(log p(token | those before it))``, in windows as the transformers documentation
    has it for models of fixed length. A text without a token to score gets the loss of knowing
    nothing: ``log(vocabulary)``, or 8 bits a byte.

    Attributes:
        reward_mode: "exp_neg_loss" is exp(-loss) = 1 / perplexity, in (0, 1]; "neg_loss" is -loss.
            Lower is better for the other two: set ``invert``. With "raw" it is the perplexity
            exp(loss). With "bits_per_byte" it is the summed loss over log(2) and the text's bytes
            in UTF-8. That compares models with different tokenizers (Gao et al. 2020,
            arXiv:2101.00027).
    """

    score_range: ClassVar[Range] = UNIT
    range_note: ClassVar[str] = (
        "neg_loss: up to 0; raw: from 1 on, low is better; bits_per_byte: from 0 on, low is better"
    )

    reward_mode: Literal["raw", "neg_loss", "exp_neg_loss", "bits_per_byte"] = "exp_neg_loss"

    def bounds(self) -> Range:
        """The range of the form that ``reward_mode`` asks for."""
        ends = {
            "raw": (1.0, math.inf),
            "neg_loss": (-math.inf, 0.0),
            "exp_neg_loss": UNIT,
            "bits_per_byte": (0.0, math.inf),
        }
        return ends[self.reward_mode]

    def direction(self) -> Literal["high", "low", "either"]:
        """Low for the perplexity itself and for bits per byte."""
        return "low" if self.reward_mode in ("raw", "bits_per_byte") else "high"

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The losses in the form that ``reward_mode`` asks for."""
        model, losses = self.losses(samples)
        if self.reward_mode == "bits_per_byte":
            pairs = zip(losses, self.texts(samples), strict=True)
            return [_bits_per_byte(loss, text) for loss, text in pairs]
        form = {"raw": math.exp, "neg_loss": lambda x: -x, "exp_neg_loss": lambda x: math.exp(-x)}
        nothing = math.log(model.vocabulary)
        means = [loss.nats / len(loss.ids) if loss.ids else nothing for loss in losses]
        return [form[self.reward_mode](mean) for mean in means]


def _bits_per_byte(loss: Loss, text: str) -> float:
    if not loss.ids:
        return BITS_OF_NOTHING
    return loss.nats / math.log(2) / len(text.encode("utf-8", "replace"))


@reward("fluency")
class Fluency(LanguageModelReward):
    """How much better the text's order explains its words than their frequency does, in nats.

    SLOR, the syntactic log-odds ratio: ``(log p(text) - log p_unigram(text)) / tokens``. Kann et
    al. 2018 (arXiv:1809.08731), from Pauls & Klein 2012. Unlike perplexity it does not fault a
    fluent sentence for its rare words, nor favour common ones. 0 is what word frequency alone gives
    (and a text without a token to score); fluent text is at some nats above it, shuffled words
    below. Like every likelihood it is won by repetition: pair it with ``diversity``.

    Departure: the paper counts unigrams in the model's training corpus. Here no corpus is needed:
    they are the mean of the model's next-token distributions over texts that it writes itself, with
    a fixed seed. 1% of the mean is spread evenly over the vocabulary.
    """

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The log-odds per token."""
        import torch

        model, losses = self.losses(samples)
        shares = (1 - UNSEEN) * model.marginal.exp() + UNSEEN / model.vocabulary
        unigram = shares.log()
        return [
            (-loss.nats - float(unigram[torch.tensor(loss.ids)].sum())) / len(loss.ids)
            if loss.ids
            else 0.0
            for loss in losses
        ]
