"""A trained reward model's own score: reward_model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from mht.core.errors import ModelError
from mht.data.text.sample import Sample
from mht.rewards.base import UNIT, Device, Positive, Range, Reward, reward
from mht.rewards.models.sequence_classifier import Classifier, classifier, texts_read


@reward("reward_model")
class RewardModel(Reward):
    """A trained reward model's own score.

    A model with one output gives that output. One with several labels gives the target label's
    log-odds ``log(p / (1 - p))``; for two labels that is the difference of their logits. A
    regression head with several labels gives the label's output. Each is unbounded; ``activation:
    sigmoid`` maps it to (0, 1), where log-odds become probabilities.

    Attributes:
        model: folder or hub name (with a revision: name@revision) of a sequence classifier.
        target: the label, for a model with several.
        activation: "none" or "sigmoid".
        text: "response", "full" (prompt + response), "pair" or "chat". A pair is prompt and
            response as the tokenizer's two segments, as many preference models were trained. The
            prompt of a conversation is all before the response. With "chat" it is the conversation
            in the model's chat template, for reward models made of chat models.
        device: "auto" (a GPU if there is one) or a torch device.
        batch_size: texts per forward pass.
        max_tokens: of longer texts the end of the prompt and the whole response are read; null is
            the model's own limit.
    """

    family: ClassVar[str] = "learned"
    needs: ClassVar[str] = "a sequence classifier, such as models/reward_model"
    range_note: ClassVar[str] = "0 to 1 with activation: sigmoid"

    model: str
    target: str | None = None
    activation: Literal["none", "sigmoid"] = "none"
    text: Literal["response", "full", "pair", "chat"] = "response"
    device: Device = "auto"
    batch_size: Positive = 32
    max_tokens: Positive | None = None

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """What `text` asks for."""
        if self.text == "chat":
            return tuple(turn[key] for turn in sample.messages for key in ("role", "content"))
        return (sample.response,) if self.text == "response" else (sample.prompt, sample.response)

    def models(self) -> tuple[str, ...]:
        """The classifier."""
        return (self.model,)

    def bounds(self) -> Range:
        """All numbers, or probabilities."""
        return UNIT if self.activation == "sigmoid" else self.score_range

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The model's output or the label's log-odds."""
        model = classifier(self.model, self.device)
        learnt = getattr(model.model.config, "reads_text", self.text)
        if learnt != self.text:
            raise ModelError(f"model {self.model!r} was trained on text {learnt}: set text to it")
        texts = texts_read(self.warn_once, model, samples, self.text, self.max_tokens)
        logits = model.logits(texts, self.batch_size, self.max_tokens)
        values = self._values(model, logits)
        return (values.sigmoid() if self.activation == "sigmoid" else values).tolist()

    def _values(self, model: Classifier, logits: Any) -> Any:
        if len(model.labels) == 1:
            if self.target is not None:
                raise ModelError(f"model {self.model!r} has one output and no labels: leave target")
            return logits[:, 0]
        if self.target is None:
            raise ModelError(
                f"model {self.model!r} has several outputs: set target to one of "
                + ", ".join(model.labels)
            )
        label = model.label(self.target)
        if model.multi_label or model.regression:
            return logits[:, label]
        others = [i for i in range(len(model.labels)) if i != label]
        return logits[:, label] - logits[:, others].logsumexp(-1)
