"""Rewards read off a sequence classifier: sentiment, reward_model, truth_nli."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from mht.errors import ModelError
from mht.rewards.base import (
    UNIT,
    Device,
    Positive,
    Range,
    Reward,
    TargetReward,
    TextReward,
    reward,
)
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


@reward("reward_model")
class RewardModel(Reward):
    """A trained reward model's own score.

    A model with one output gives that output; one with several labels gives the target label's
    log-odds ``log(p / (1 - p))``, which for two labels is the difference of their logits. Either
    is unbounded; ``activation: sigmoid`` maps it to (0, 1), where log-odds become probabilities.

    Attributes:
        model: folder or hub name of a sequence classifier.
        target: the label, for a model with several.
        activation: "none" or "sigmoid".
        text: "response", "full" (prompt + response), or "pair" (prompt and response as the
            tokenizer's two segments, as many preference models were trained).
        device: "auto" (a GPU if there is one) or a torch device.
        batch_size: texts per forward pass.
        max_tokens: longer texts are cut; null is the model's own limit.
    """

    family: ClassVar[str] = "learned"
    needs: ClassVar[str] = "a sequence classifier, such as models/reward_model"
    range_note: ClassVar[str] = "0 to 1 with activation: sigmoid"

    model: str
    target: str | None = None
    activation: Literal["none", "sigmoid"] = "none"
    text: Literal["response", "full", "pair"] = "response"
    device: Device = "auto"
    batch_size: Positive = 32
    max_tokens: Positive | None = None

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """What `text` asks for."""
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
        logits = model.logits(self._texts(samples), self.batch_size, self.max_tokens)
        values = self._values(model, logits)
        return (values.sigmoid() if self.activation == "sigmoid" else values).tolist()

    def _texts(self, samples: Sequence[Sample]) -> list[Any]:
        if self.text == "pair":
            return [(s.prompt, s.response) for s in samples]
        return [s.full if self.text == "full" else s.response for s in samples]

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
        if model.multi_label:
            return logits[:, label]
        others = [i for i in range(len(model.labels)) if i != label]
        return logits[:, label] - logits[:, others].logsumexp(-1)


@reward("truth_nli", "truthfulness")
class TruthNLI(TargetReward):
    """Whether the premise entails the response, by natural language inference, in [0, 1].

    The classifier sees (premise, response) as its two segments; its labels are found by their
    names (entail..., neutral, contra...). An empty response or premise gives 0.5: nothing is
    claimed, or nothing is known.

    Attributes:
        model: folder or hub name of a three-way NLI classifier.
        aggregation: "p_e_minus_p_c" is (p_e - p_c + 1) / 2; "p_e"; "p_e_plus_half_neutral" is
            p_e + p_n / 2, which equals the first because the three add up to 1.
        premise: what is taken as true, "target" or "prompt".
        device: "auto" (a GPU if there is one) or a torch device.
        batch_size: pairs per forward pass.
        max_tokens: longer pairs are cut; null is the model's own limit.
    """

    family: ClassVar[str] = "truth"
    needs: ClassVar[str] = "a target or prompt; a three-way NLI classifier"

    model: str = "cross-encoder/nli-deberta-v3-small"
    aggregation: Literal["p_e_minus_p_c", "p_e", "p_e_plus_half_neutral"] = "p_e_minus_p_c"
    premise: Literal["target", "prompt"] = "target"
    device: Device = "auto"
    batch_size: Positive = 16
    max_tokens: Positive | None = None

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """Premise and response."""
        return getattr(sample, self.premise), sample.response

    def models(self) -> tuple[str, ...]:
        """The classifier."""
        return (self.model,)

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The aggregated probabilities."""
        pairs = [(s.prompt, s.response) for s in samples]
        if self.premise == "target":
            pairs = [(target, response) for response, target in self.pairs(samples)]
        filled = [i for i, pair in enumerate(pairs) if all(text.strip() for text in pair)]
        scores = [0.5] * len(pairs)
        model = classifier(self.model, self.device)
        at = _nli_labels(model, self.model)
        if filled:
            chosen = [pairs[i] for i in filled]
            shares = model.logits(chosen, self.batch_size, self.max_tokens).softmax(-1)
            for i, row in zip(filled, shares.tolist(), strict=True):
                scores[i] = self._aggregate(*(row[k] for k in at))
        return scores

    def _aggregate(self, entailed: float, neutral: float, contradicted: float) -> float:
        if self.aggregation == "p_e":
            return entailed
        if self.aggregation == "p_e_plus_half_neutral":
            return entailed + neutral / 2
        return (entailed - contradicted + 1) / 2


def _nli_labels(model: Classifier, name: str) -> list[int]:
    """Where the model has entailment, neutral and contradiction."""
    places = []
    for start in ("entail", "neutral", "contra"):
        found = [i for i, label in enumerate(model.labels) if label.casefold().startswith(start)]
        if len(found) != 1 or len(model.labels) != 3:
            raise ModelError(
                f"model {name!r} is no three-way NLI classifier: its labels are "
                f"{', '.join(model.labels)}, not entailment, neutral, contradiction"
            )
        places += found
    return places
