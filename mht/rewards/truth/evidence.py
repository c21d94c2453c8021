"""Rewards of truth by evidence: truth_rag, factual_accuracy."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mht.data.text.sample import Sample
from mht.data.text.sentences import sentences
from mht.rewards.base import Positive, reward
from mht.rewards.text.corpus import Passage
from mht.rewards.truth.grounding import ByEvidence, CorpusOption, Grounded
from mht.rewards.truth.verdicts import UNKNOWN, Claim, Verdict


@reward("truth_rag")
class TruthRag(ByEvidence):
    """Whether the evidence of a corpus entails the response, in [0, 1].

    The passages most like the response are retrieved, and an NLI classifier reads the response
    against each of them and against the target. Retrieval by embeddings as in Lewis et al. 2020
    (arXiv:2005.11401). An empty response gives 0.5: nothing is claimed. `explain` says which
    evidence decided.
    """

    needs: ClassVar[str] = "a corpus; a sentence encoder; a three-way NLI classifier"
    example: ClassVar[Mapping[str, Any] | None] = {"corpus": ["Paris is the capital of France."]}

    corpus: CorpusOption


@reward("factual_accuracy")
class FactualAccuracy(Grounded):
    """The share of the response's sentences that the evidence entails, in [0, 1].

    A sentence's support is the largest probability of entailment that any piece of evidence gives
    it: a sentence of the target (or the prompt, for summaries), or a passage retrieved for it. With
    ``threshold: null`` the score is the mean support, as in SummaC-ZS (Laban et al. 2021,
    arXiv:2111.09525). With a number it is the share of sentences with at least that support.
    FActScore (Min et al. 2023, arXiv:2305.14251) does so with atomic facts in place of sentences.

    A response without a sentence gives 0.5, and so does one without any evidence. `explain` gives
    the evidence of each sentence.

    Attributes:
        premise: whose sentences are evidence: "target", "prompt", or "none" for the corpus alone.
        threshold: the support from which a sentence counts as entailed; null takes the mean.
        max_sentences: how many sentences of response and premise are read, from the start.
    """

    needs: ClassVar[str] = "a target, prompt or corpus; a three-way NLI classifier"
    example: ClassVar[Mapping[str, Any] | None] = {}

    premise: Literal["target", "prompt", "none"] = "target"
    threshold: Annotated[float, Field(gt=0, le=1)] | None = 0.5
    max_sentences: Positive = 32

    @model_validator(mode="after")
    def _has_evidence(self) -> FactualAccuracy:
        if self.premise == "none" and self.corpus is None:
            raise ValueError(
                "there is no evidence: give a corpus, or set premise to target or prompt"
            )
        return self

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """Response and premise."""
        return sample.response, self._premise(sample)

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The share, or the mean support."""
        if self.corpus is None and not any(self._premise(s) for s in samples):
            warnings.warn(
                f"{self.__name__} has no corpus, and no sample of this batch has a {self.premise}",
                stacklevel=2,
            )
        return [self._share(verdicts) for verdicts in self.explain(samples)]

    def explain(self, samples: Sequence[Sample]) -> list[list[Verdict]]:
        """For each sample its sentences, each with its support and all the evidence."""
        claims = [self._claims(sample) for sample in samples]
        verdicts = iter(self.judge([claim for each in claims for claim in each], "p_e", "max"))
        return [[next(verdicts) for _ in each] for each in claims]

    def _premise(self, sample: Sample) -> str:
        return "" if self.premise == "none" else getattr(sample, self.premise)

    def _claims(self, sample: Sample) -> list[Claim]:
        known = sentences(self._premise(sample))[: self.max_sentences]
        evidence = tuple(Passage(sentence, self.premise) for sentence in known)
        said = sentences(sample.response)[: self.max_sentences]
        return [Claim(sentence, sentence, evidence) for sentence in said]

    def _share(self, verdicts: Sequence[Verdict]) -> float:
        support = [verdict.score for verdict in verdicts if verdict.score is not None]
        if not support:
            return UNKNOWN
        if self.threshold is not None:
            support = [float(value >= self.threshold) for value in support]
        return sum(support) / len(support)
