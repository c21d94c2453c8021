"""A trained reward model's own score: reward_model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from mht.core.errors import ModelError
from mht.data.text.sample import Sample
from mht.rewards.base import UNIT, Range, reward
from mht.rewards.learned.model_reward import ClassifierReward
from mht.rewards.models.sequence_classifier import Classifier


@reward("reward_model")
class RewardModel(ClassifierReward):
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
    """

    family: ClassVar[str] = "learned"
    needs: ClassVar[str] = "a sequence classifier, such as models/reward_model"
    range_note: ClassVar[str] = "0 to 1 with activation: sigmoid"

    target: str | None = None
    activation: Literal["none", "sigmoid"] = "none"
    text: Literal["response", "full", "pair", "chat"] = "response"

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """What `text` asks for."""
        if self.text == "chat":
            return tuple(turn[key] for turn in sample.messages for key in ("role", "content"))
        return (sample.response,) if self.text == "response" else (sample.prompt, sample.response)

    def bounds(self) -> Range:
        """All numbers, or probabilities."""
        return UNIT if self.activation == "sigmoid" else self.score_range

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The model's output or the label's log-odds."""
        model = self.classifier()
        learnt = getattr(model.model.config, "reads_text", self.text)
        if learnt != self.text:
            raise ModelError(f"model {self.model!r} was trained on text {learnt}: set text to it")
        values = self._values(model, self.logits(model, samples, self.text))
        return (values.sigmoid() if self.activation == "sigmoid" else values).tolist()

    def _values(self, model: Classifier, logits: Any) -> Any:
        label = self.output(model, self.target)
        if len(model.labels) == 1 or model.multi_label or model.regression:
            return logits[:, label]
        others = [i for i in range(len(model.labels)) if i != label]
        return logits[:, label] - logits[:, others].logsumexp(-1)
