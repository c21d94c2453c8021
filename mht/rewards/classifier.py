"""Rewards read off a sequence classifier: sentiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mht.errors import ModelError
from mht.rewards.base import UNIT, Device, Positive, Range, TextReward, reward
from mht.rewards.sequence_classifier import Classifier, classifier
from mht.types import Sample


def probabilities(model: Classifier, logits: Any) -> Any:
    """(B, labels) probabilities: softmax, or sigmoid for a multi-label model."""
    return logits.sigmoid() if model.multi_label else logits.softmax(-1)


@reward("sentiment")
class Sentiment(TextReward):
    """How much a classifier sees the target label in the text, in [0, 1].

    Attributes:
        model: folder or hub name of a sequence classifier.
        target: one of the classifier's own label names, upper and lower case alike.
        scale: true gives the label's probability; false gives 1.0 where it is the likeliest label
            (multi-label: where its probability is at least 0.5), else 0.0.
        device: "auto" (a GPU if there is one) or a torch device.
        batch_size: texts per forward pass.
        max_tokens: longer texts are cut; null is the model's own limit.
    """

    family: ClassVar[str] = "classifiers"
    needs: ClassVar[str] = "a sequence classifier, such as models/reward_model"
    score_range: ClassVar[Range] = UNIT

    model: str = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
    target: str = "positive"
    scale: bool = True
    device: Device = "auto"
    batch_size: Positive = 32
    max_tokens: Positive | None = None

    def models(self) -> tuple[str, ...]:
        """The classifier."""
        return (self.model,)

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The target label's probability, or whether it wins."""
        model = classifier(self.model, self.device)
        if len(model.labels) < 2:
            raise ModelError(f"model {self.model!r} has one output: use the type reward_model")
        label = model.label(self.target)
        shares = probabilities(
            model, model.logits(self.texts(samples), self.batch_size, self.max_tokens)
        )
        if self.scale:
            return shares[:, label].tolist()
        wins = shares[:, label] >= 0.5 if model.multi_label else shares.argmax(-1) == label
        return wins.float().tolist()
