"""What rewards that judge by evidence share: a corpus, retrieval, inference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from mht.core.errors import DataError, ModelError
from mht.data.text.sample import Sample
from mht.rewards.base import UNIT, Device, Positive, Range, Reward
from mht.rewards.models.entailment import Aggregation, Entailment
from mht.rewards.text.corpus import Passage, Unit, files, passages
from mht.rewards.truth.retrieval import Found, Retriever
from mht.rewards.truth.verdicts import UNKNOWN, Agg, Claim, Verdict, given, verdict

Words = Annotated[int, Field(ge=8)]
CorpusOption = str | list[str]


class Grounded(Reward):
    """A reward that judges claims by evidence: retrieval, then natural language inference.

    Attributes:
        unit: what one text of a .txt or .md file is: a line, a paragraph (between blank lines), or
            the file.
        column: of .jsonl and .parquet files, the one with the texts.
        chunk_words: the most words of a passage; longer texts are cut between sentences.
        corpus: the evidence: a folder of files, a file (.txt, .md, .jsonl, .parquet), or a list of
            texts. Looked at when the configuration is checked, read and embedded on first use.
        embedder: folder or hub name of a sentence-transformers model, for retrieval.
        embeddings: a folder where the corpus's embeddings are kept for other runs, such as
            .mht/evidence; null embeds it once in each run.
        top_k: passages retrieved for each claim.
        nli_model: folder or hub name of a three-way NLI classifier.
        device: "auto" (a GPU if there is one) or a torch device.
        batch_size: texts or pairs per forward pass.
        max_tokens: longer pairs of evidence and claim are cut; null is the NLI model's own limit.
    """

    family: ClassVar[str] = "truth"
    score_range: ClassVar[Range] = UNIT

    unit: Unit = "paragraph"
    column: str = "text"
    chunk_words: Words = 100
    corpus: CorpusOption | None = None
    embedder: str = "sentence-transformers/all-MiniLM-L6-v2"
    embeddings: str | None = None
    top_k: Positive = 3
    nli_model: str = "cross-encoder/nli-deberta-v3-small"
    device: Device = "auto"
    batch_size: Positive = 16
    max_tokens: Positive | None = None

    @field_validator("corpus")
    @classmethod
    def _has_a_passage(cls, corpus: Any, info: ValidationInfo) -> Any:
        """Its first passage can be read."""
        options = {"unit", "column"} <= set(info.data)  # else these are wrong, and reported
        if corpus is not None and options:
            try:
                next(passages(corpus, info.data["unit"], info.data["column"]))
            except DataError as error:
                raise ValueError(str(error)) from None
        return corpus

    @cached_property
    def retriever(self) -> Retriever | None:
        """The corpus, read once for this reward; None without one."""
        if self.corpus is None:
            return None
        try:
            found = list(passages(self.corpus, self.unit, self.column, self.chunk_words))
        except DataError as error:  # further down than its first passage
            raise ModelError(f"corpus: {error}") from None  # no score without it: it always stops
        return Retriever(found, self.embedder, self.device, self.batch_size, self.embeddings)

    def models(self) -> tuple[str, ...]:
        """The NLI classifier; where there is a corpus, the embedder and the corpus's files too."""
        if self.corpus is None:
            return (self.nli_model,)
        read = files(self.corpus) if isinstance(self.corpus, str) else []
        return (self.nli_model, self.embedder, *map(str, read))

    def judge(
        self,
        claims: Sequence[Claim],
        aggregation: Aggregation,
        agg: Agg,
    ) -> list[Verdict]:
        """A verdict for each claim.

        Args:
            claims: what is judged.
            aggregation: how the three probabilities of a passage become one number.
            agg: how the passages' numbers become one: the largest, or their mean.
        """
        entailment = Entailment(self.nli_model, self.device, self.batch_size, self.max_tokens)
        found = self._evidence(claims)
        pairs = [
            (item.text, claim.text)
            for claim, items in zip(claims, found, strict=True)
            for item, _ in items
        ]
        shares = iter(entailment(pairs))
        return [
            verdict(claim.text, items, [next(shares) for _ in items], aggregation, agg)
            for claim, items in zip(claims, found, strict=True)
        ]

    def _evidence(self, claims: Sequence[Claim]) -> list[list[tuple[Passage, float | None]]]:
        """Each claim's given passages, then the retrieved ones with their similarity."""
        nothing: list[list[Found]] = [[] for _ in claims]
        if self.retriever is not None:
            nothing = self.retriever.nearest([claim.query for claim in claims], self.top_k)
        return [
            [*((passage, None) for passage in claim.given), *near]
            for claim, near in zip(claims, nothing, strict=True)
        ]


class ByEvidence(Grounded):
    """A grounded reward whose one claim is the response.

    Attributes:
        aggregation: what one passage gives: "p_e_minus_p_c" is (p_e - p_c + 1) / 2; "p_e";
            "p_e_plus_half_neutral" is p_e + p_n / 2.
        agg: "max" is the most favourable passage, "mean" their average.
        query: the passages are looked up by the "response", or by the "full" text, prompt first.
        with_target: the target is evidence too, where the data has one.
    """

    aggregation: Aggregation = "p_e_minus_p_c"
    agg: Agg = "max"
    query: Literal["response", "full"] = "response"
    with_target: bool = True

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """Response, target, and the prompt where it is part of the query."""
        target = sample.target if self.with_target else ""
        prompt = sample.prompt if self.query == "full" else ""
        return sample.response, target, prompt

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The aggregated probabilities over the evidence; 0.5 for an empty response."""
        scores = [found.score for found in self.explain(samples)]
        return [UNKNOWN if score is None else score for score in scores]

    def explain(self, samples: Sequence[Sample]) -> list[Verdict]:
        """For each sample its score with all the evidence, and which of it decided."""
        verdicts = [Verdict(s.response, None, ()) for s in samples]
        filled = [i for i, s in enumerate(samples) if s.response.strip()]
        claims = [self._claim(samples[i]) for i in filled]
        for i, found in zip(filled, self.judge(claims, self.aggregation, self.agg), strict=True):
            verdicts[i] = found
        return verdicts

    def _claim(self, sample: Sample) -> Claim:
        query = sample.full if self.query == "full" else sample.response
        return Claim(sample.response, query, given(sample, "target") if self.with_target else ())
