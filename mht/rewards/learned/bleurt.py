"""A learned metric of response and target: bleurt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mht.core.errors import ModelError
from mht.data.text.sample import Sample
from mht.data.text.special import broken_up
from mht.rewards.base import ANY, Positive, Range, TargetReward, reward
from mht.rewards.learned.model_reward import ModelReward
from mht.rewards.models.sequence_classifier import classifier, warn_of_long


@reward("bleurt")
class Bleurt(TargetReward, ModelReward):
    """BLEURT's rating of the response against the target, any number.

    Sellam et al. 2020 (arXiv:2004.04696): a regression on human ratings, read off target and
    response as the two segments. The default is the authors' BLEURT-base (512 tokens) for
    transformers' own BERT. Any sequence classifier with one output loads. BLEURT-20 does not,
    because it needs an architecture of its own.

    Attributes:
        model: folder or hub name (with a revision: name@revision) of a model with one output.
        max_tokens: longer pairs are cut; null is the model's own limit.
    """

    needs: ClassVar[str] = "a target; a BLEURT checkpoint as a one-output sequence classifier"
    score_range: ClassVar[Range] = ANY
    range_note: ClassVar[str] = "about -2 (unrelated) to 1 (alike) with the default"

    model: str = "Elron/bleurt-base-512@refs/pr/1"
    max_tokens: Positive | None = None

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The model's output."""
        model = classifier(self.model, self.device)
        if len(model.labels) != 1:
            raise ModelError(
                f"model {self.model!r} has {len(model.labels)} outputs, a metric has one: set "
                f"model to a BLEURT checkpoint"
            )
        pairs = [
            broken_up((target, response), model.tokenizer)
            for response, target in self.pairs(samples)
        ]
        warn_of_long(self.warn_once, model, pairs, self.max_tokens)
        return model.logits(pairs, self.batch_size, self.max_tokens)[:, 0].tolist()
