"""What the metrics are: the table that explains them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower", "neither"]

GROUP = 16  # responses whose n-grams are counted together by distinct-n
REPEATED = 4  # words in the n-grams whose repetition within a response is counted


@dataclass(frozen=True)
class Metric:
    """What a metric is and how to read it.

    Attributes:
        label: for people.
        low: smallest possible value; None is unbounded.
        high: largest possible value; None is unbounded.
        direction: which way is better, or "neither".
        meaning: one line.
        needs_target: NaN for a sample without a target.
    """

    label: str
    low: float | None
    high: float | None
    direction: Direction
    meaning: str
    needs_target: bool = False

    @property
    def arrow(self) -> str:
        """↑ where higher is better, ↓ where lower is, else nothing."""
        return {"higher": "↑", "lower": "↓", "neither": ""}[self.direction]


def describe(name: str) -> Metric:
    """The table's entry for a metric; a node of the reward tree gets one made for it."""
    if name in METRICS:
        return METRICS[name]
    if name == "reward":
        return Metric("Reward", None, None, "higher", "mean of the whole reward")
    if name.startswith("judge/"):
        own = name.removeprefix("judge/")
        return Metric(f"Judge {own}", None, None, "higher", f"the judge {own!r} of evaluate.judges")
    node = name.removeprefix("reward/")
    meaning = f"mean of the node {node!r} of the reward tree" if node != name else "mean"
    return Metric(name, None, None, "higher" if node != name else "neither", meaning)


def _with_target(label: str, meaning: str) -> Metric:
    return Metric(label, 0, 1, "higher", meaning, needs_target=True)


METRICS: dict[str, Metric] = {
    "p_positive": Metric(
        "P(positive)", 0, 1, "higher", "the judge's probability that prompt + response is positive"
    ),
    "vader": Metric("VADER", -1, 1, "higher", "sentiment by a word list that was never a reward"),
    "vader_response": Metric("VADER, response", -1, 1, "higher", "the same for the response alone"),
    "response_length": Metric("Length", 0, None, "neither", "tokens in the response, EOS included"),
    "response_words": Metric("Length in words", 0, None, "neither", "words in the response"),
    "ended_by_eos": Metric(
        "Ended by EOS", 0, 1, "neither", "share of responses that ended before the length limit"
    ),
    "distinct_1": Metric(
        "Distinct-1", 0, 1, "higher", f"different words / all words, in {GROUP} responses"
    ),
    "distinct_2": Metric(
        "Distinct-2", 0, 1, "higher", f"different word pairs / all pairs, in {GROUP} responses"
    ),
    "distinct_3": Metric(
        "Distinct-3", 0, 1, "higher", f"different word triples / all triples, in {GROUP} responses"
    ),
    "repetition": Metric(
        "Repetition",
        0,
        1,
        "lower",
        f"share of a response's runs of {REPEATED} words that it said before",
    ),
    "kl_nats": Metric(
        "KL (nats)",
        None,
        None,
        "lower",
        "how far a response's log-probability moved from the base model's, summed over its tokens",
    ),
    "kl_to_sft_nats": Metric(
        "KL to SFT (nats)",
        None,
        None,
        "lower",
        "the same from the SFT model that the hybrid's cycles began with",
    ),
    "perplexity_human": Metric(
        "Perplexity, human text", 1, None, "lower", "of the variant on the test texts' own endings"
    ),
    "perplexity_generated": Metric(
        "Perplexity, generated",
        1,
        None,
        "neither",
        "of the base model on the variant's responses: low is bland, high is odd",
    ),
    "bleu": _with_target("BLEU", "n-gram precision against the target"),
    "rouge_1": _with_target("ROUGE-1", "word overlap with the target, F1"),
    "rouge_2": _with_target("ROUGE-2", "word-pair overlap with the target, F1"),
    "rouge_l": _with_target("ROUGE-L", "longest common subsequence with the target, F1"),
    "token_f1": _with_target("Token F1", "words shared with the target, as in SQuAD"),
    "exact_match": _with_target("Exact match", "equal to the target, as in SQuAD"),
    "bertscore": Metric(
        "BERTScore",
        -1,
        1,
        "higher",
        "soft word overlap with the target by embeddings, F1",
        needs_target=True,
    ),
}
