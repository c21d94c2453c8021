"""What rewards that ask one model share: its name, where it runs, how much it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mht.core.errors import ModelError
from mht.data.text.sample import Sample
from mht.rewards.base import Device, Positive, Reward
from mht.rewards.models.sequence_classifier import Classifier, classifier, texts_read


class ModelReward(Reward):
    """A reward that asks one model.

    Attributes:
        model: folder or hub name (with a revision: name@revision).
        device: "auto" (a GPU if there is one) or a torch device.
        batch_size: texts, or pairs of them, per forward pass.
    """

    model: str
    device: Device = "auto"
    batch_size: Positive = 32

    def models(self) -> tuple[str, ...]:
        """The one model."""
        return (self.model,)


class ClassifierReward(ModelReward):
    """A reward that asks a sequence classifier about prompt and response.

    Attributes:
        max_tokens: of longer texts the end of the prompt and the whole response are read; null is
            the model's own limit.
    """

    max_tokens: Positive | None = None

    def classifier(self) -> Classifier:
        """The loaded model.

        Raises:
            ModelError: it can't be had, or is no classifier.
        """
        return classifier(self.model, self.device)

    def logits(self, model: Classifier, samples: Sequence[Sample], text: str) -> Any:
        """(B, labels) float32 for each sample's ``text``: response, full, pair or chat."""
        texts = texts_read(self.warn_once, model, samples, text, self.max_tokens)
        return model.logits(texts, self.batch_size, self.max_tokens)

    def output(self, model: Classifier, target: str | None) -> int:
        """The model's only output, or the one with the target label.

        Raises:
            ModelError: there is one output and a target, or there are several and none.
        """
        if len(model.labels) == 1:
            if target is not None:
                raise ModelError(f"model {self.model!r} has one output and no labels: leave target")
            return 0
        if target is None:
            raise ModelError(
                f"model {self.model!r} has several outputs: set target to one of "
                + ", ".join(model.labels)
            )
        return model.label(target)
