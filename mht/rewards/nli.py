"""Rewards of entailment, by natural language inference: truth_nli."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from mht.errors import ModelError
from mht.rewards.base import Device, Positive, TargetReward, reward
from mht.rewards.sequence_classifier import Classifier, classifier
from mht.types import Sample


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
