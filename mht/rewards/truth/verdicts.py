"""Claims, the evidence for them, and what an NLI classifier makes of the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mht.data.text.sample import Sample
from mht.rewards.models.entailment import Aggregation, Shares
from mht.rewards.text.corpus import Passage

UNKNOWN = 0.5  # the score where nothing is claimed, or nothing is known
Agg = Literal["max", "mean"]


class Claim(NamedTuple):
    """Something to be judged.

    Attributes:
        text: what is claimed.
        query: what its evidence is looked up by.
        given: evidence that need not be looked up.
    """

    text: str
    query: str
    given: tuple[Passage, ...]


@dataclass(frozen=True)
class Evidence:
    """What one passage says about a claim.

    Attributes:
        text: the passage.
        place: where it stands: ``facts.txt:12``, or "target" or "prompt".
        similarity: the cosine it was retrieved by, in [-1, 1]; None where it was not looked up.
        p_e: probability that it entails the claim.
        p_n: that it says nothing about it.
        p_c: that it contradicts it.
        value: those as one number in [0, 1].
        decided: whether the claim's score is this value, or a mean that has it in it.
    """

    text: str
    place: str
    similarity: float | None
    p_e: float
    p_n: float
    p_c: float
    value: float
    decided: bool


@dataclass(frozen=True)
class Verdict:
    """A claim with its score and the evidence for it, as it was considered.

    Attributes:
        claim: the text.
        score: in [0, 1]; None where there is no evidence at all, or no claim.
        evidence: the given passages first, then the retrieved ones, the most similar one first.
    """

    claim: str
    score: float | None
    evidence: tuple[Evidence, ...]


def given(sample: Sample, *fields: str) -> tuple[Passage, ...]:
    """The sample's own texts that are not blank, as evidence: target, prompt."""
    texts = ((getattr(sample, field), field) for field in fields)
    return tuple(Passage(text, field) for text, field in texts if text.strip())


def verdict(
    claim: str,
    items: Sequence[tuple[Passage, float | None]],
    shares: Sequence[Shares],
    aggregation: Aggregation,
    agg: Agg,
) -> Verdict:
    """The verdict on a claim.

    Args:
        claim: the text.
        items: passages, with their similarity where they were looked up.
        shares: what the classifier gives for each of them.
        aggregation: how three probabilities become a number.
        agg: how the passages' numbers become one.
    """
    values = [each.value(aggregation) for each in shares]
    if not values:
        return Verdict(claim, None, ())
    best = values.index(max(values))
    evidence = tuple(
        Evidence(*item, similarity, *each, value, agg == "mean" or i == best)
        for i, ((item, similarity), each, value) in enumerate(
            zip(items, shares, values, strict=True)
        )
    )
    return Verdict(claim, values[best] if agg == "max" else sum(values) / len(values), evidence)
