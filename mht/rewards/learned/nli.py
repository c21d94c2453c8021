"""Rewards of entailment, by natural language inference: truth_nli."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from mht.data.text.sample import Sample
from mht.rewards.base import Positive, TargetReward, reward
from mht.rewards.learned.model_reward import ModelReward
from mht.rewards.models.entailment import Aggregation, Entailment
from mht.rewards.models.sequence_classifier import texts_read, warn_of_long


@reward("truth_nli", "truthfulness")
class TruthNLI(TargetReward, ModelReward):
    """Whether the premise entails the response, by natural language inference, in [0, 1].

    The classifier sees (premise, response) as its two segments; its labels are found by their
    names (entail..., neutral, contra...). An empty response or premise gives 0.5.

    Attributes:
        model: folder or hub name of a three-way NLI classifier.
        aggregation: "p_e_minus_p_c" is (p_e - p_c + 1) / 2; "p_e"; "p_e_plus_half_neutral" is
            p_e + p_n / 2, which equals the first because the three add up to 1.
        premise: what is taken as true, "target" or "prompt".
        max_tokens: longer pairs are cut, a prompt at its beginning, a target and then the response
            at their ends; null is the model's own limit.
    """

    family: ClassVar[str] = "truth"
    needs: ClassVar[str] = "a target or prompt; a three-way NLI classifier"

    model: str = "cross-encoder/nli-deberta-v3-small"
    aggregation: Aggregation = "p_e_minus_p_c"
    premise: Literal["target", "prompt"] = "target"
    batch_size: Positive = 16
    max_tokens: Positive | None = None

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """Premise and response."""
        return getattr(sample, self.premise), sample.response

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The aggregated probabilities."""
        pairs = [(s.prompt, s.response) for s in samples]
        if self.premise == "target":
            pairs = [(target, response) for response, target in self.pairs(samples)]
        filled = [i for i, pair in enumerate(pairs) if all(text.strip() for text in pair)]
        entailment = Entailment(self.model, self.device, self.batch_size, self.max_tokens)
        read = [pairs[i] for i in filled]
        if self.premise == "prompt":
            both = [Sample(*pair) for pair in read]
            read = texts_read(self.warn_once, entailment.model, both, "pair", self.max_tokens)
        warn_of_long(self.warn_once, entailment.model, read, self.max_tokens)
        scores = [0.5] * len(pairs)
        for i, shares in zip(filled, entailment(read), strict=True):
            scores[i] = shares.value(self.aggregation)
        return scores
