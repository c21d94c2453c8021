"""Rewards of a field of knowledge: medical_accuracy, legal_validity, scientific_integrity.

They contain no medicine, law or science: the user gives a classifier or a corpus of the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from mht.core.component import refuse
from mht.core.errors import ModelError
from mht.data.text.sample import Sample
from mht.rewards.base import reward
from mht.rewards.models.sequence_classifier import classifier, probabilities, texts_read
from mht.rewards.truth.grounding import ByEvidence


class Domain(ByEvidence):
    """The probability of a label by a classifier of the field, or `truth_rag` on its corpus.

    Attributes:
        model: folder or hub name of a sequence classifier; or null, and a corpus.
        target: the classifier's label for good responses, in upper or lower case.
        text: what the classifier reads: the "response", or the "full" text, prompt first.
    """

    family: ClassVar[str] = "domain"
    needs: ClassVar[str] = "a sequence classifier of the field, or a corpus of it as for truth_rag"
    example: ClassVar[Mapping[str, Any] | None] = {"corpus": ["A claim that the field accepts."]}

    model: str | None = None
    target: str | None = None
    text: Literal["response", "full"] = "response"

    @model_validator(mode="after")
    def _is_one_of_the_two(self) -> Domain:
        if (self.model is None) == (self.corpus is None):
            got = "neither" if self.model is None else "both"
            raise ValueError(
                "give either model (a classifier of your field, with target) or corpus (texts of "
                f"your field that are taken as true), got {got}"
            )
        if self.model is not None and self.target is None:
            refuse([("target", "is missing: name the label of the model that is the good one")])
        if self.model is None and self.target is not None:
            refuse([("target", "is a label of a model, and a corpus has none: remove it")])
        return self

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """The classifier's text, or what truth_rag reads."""
        return super().reads(sample) if self.model is None else (self._text(sample),)

    def models(self) -> tuple[str, ...]:
        """The classifier, or those of truth_rag."""
        return super().models() if self.model is None else (self.model,)

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The label's probability, or the evidence's."""
        if self.model is None or self.target is None:
            return super().score(samples)
        model = classifier(self.model, self.device)
        model.refuse_regression()
        if len(model.labels) < 2:
            raise ModelError(f"model {self.model!r} has one output: use the type reward_model")
        label = model.label(self.target)
        texts = texts_read(self.warn_once, model, samples, self.text, self.max_tokens)
        logits = model.logits(texts, self.batch_size, self.max_tokens)
        return probabilities(logits, model.multi_label)[:, label].tolist()

    def _text(self, sample: Sample) -> str:
        return sample.full if self.text == "full" else sample.response


@reward("medical_accuracy")
class MedicalAccuracy(Domain):
    """The score by your own classifier or corpus of medicine, in [0, 1].

    The type alone knows no medicine, and no score replaces a physician's judgement.
    """


@reward("legal_validity")
class LegalValidity(Domain):
    """The score by your own classifier or corpus of law, in [0, 1].

    The type alone knows no law, and no score replaces a lawyer's judgement.
    """


@reward("scientific_integrity")
class ScientificIntegrity(Domain):
    """The score by your own classifier or corpus of science, in [0, 1].

    The type alone knows no science: the corpus may hold abstracts, findings or rules of method.
    """
