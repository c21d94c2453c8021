"""Text metrics of responses, each with a value per response, and the table that explains them.

Texts are compared in Unicode NFC. In scripts without spaces each character is a word (`words`).
A metric that compares with the target gives NaN for a sample without one and is left out where no
sample has one. Nothing here is a sum over the test set: summaries and intervals are made from the
per-response values by `mht.evaluation.summary`.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import regex

from mht.data.text.rouge import RougeTokenizer
from mht.data.text.sample import Sample
from mht.data.text.words import (
    chunks,
    fold,
    mteval_words,
    nfc,
    spread,
    warn_of_other_scripts,
    words,
)
from mht.evaluation.bertscore import bertscore

Direction = Literal["higher", "lower", "neither"]
Score = Callable[[Sequence[Sample]], list[float]]

GROUP = 16  # responses whose n-grams are counted together by distinct-n
REPEATED = 4  # words in the n-grams whose repetition within a response is counted
NAN = float("nan")
# SQuAD takes out punctuation in ASCII; a typographic apostrophe or hyphen is the same thing
TAKEN_OUT = regex.compile(rf"[{regex.escape(string.punctuation)}\u2018\u2019\u2010\u2011]")
SKIPPED = regex.compile(r"\b(?:a|an|the)\b|\p{P}")  # articles, and punctuation of other scripts


@dataclass(frozen=True)
class Metric:
    """What a metric is and how to read it.

    Attributes:
        label: for people.
        low: smallest possible value; None is unbounded.
        high: largest possible value; None is unbounded.
        direction: which way is better, or "neither".
        meaning: one line.
        score: samples to a value each; None where a model is needed, so the evaluator gives it.
        needs_target: NaN for a sample without a target.
    """

    label: str
    low: float | None
    high: float | None
    direction: Direction
    meaning: str
    score: Score | None = None
    needs_target: bool = False

    @property
    def arrow(self) -> str:
        """↑ where higher is better, ↓ where lower is, else nothing."""
        return {"higher": "↑", "lower": "↓", "neither": ""}[self.direction]


def text_metrics(
    samples: Sequence[Sample],
    *,
    bertscore_model: str | None = None,
    bertscore_layer: int = 5,
    batch_size: int = 32,
    device: str = "cpu",
) -> dict[str, list[float]]:
    """Every text metric's value for each sample, keyed by the metric's name.

    Args:
        samples: prompts with responses, and targets where there are any.
        bertscore_model: a local encoder's folder or hub name; None leaves BERTScore out.
        bertscore_layer: whose hidden states BERTScore compares.
        batch_size: texts encoded at once for BERTScore.
        device: where BERTScore's encoder runs.

    Returns:
        Lists as long as ``samples``. Metrics against the target are NaN where a sample has none,
        and absent where no sample has one.
    """
    with_target = [sample for sample in samples if sample.target.strip()]
    values = {
        name: metric.score(samples)
        for name, metric in METRICS.items()
        if metric.score and not metric.needs_target
    }
    for name, metric in METRICS.items():
        if metric.score and metric.needs_target and with_target:
            values[name] = _spread(samples, metric.score(with_target))
    if bertscore_model is not None and with_target:
        scores = bertscore(
            with_target, bertscore_model, bertscore_layer, batch_size=batch_size, device=device
        )
        values["bertscore"] = _spread(samples, scores)
    return dict(sorted(values.items()))


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


def _spread(samples: Sequence[Sample], scores: Sequence[float]) -> list[float]:
    """Put the values of the samples with a target in their places."""
    rest = iter(scores)
    return [next(rest) if sample.target.strip() else NAN for sample in samples]


def bleu(samples: Sequence[Sample]) -> list[float]:
    """Sentence BLEU / 100, effective order, exponential smoothing, by sacrebleu (arXiv:1804.08771).

    Words are those of its tokenizer 13a; before it, words of scripts without spaces and stops
    other than ASCII's are set apart, which it would not do.

    Args:
        samples: with targets; the prompt is not counted.
    """
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(effective_order=True)
    # sacrebleu's score of a perfect match is 100.00000000000004
    pairs = [(mteval_words(nfc(s.response)), mteval_words(nfc(s.target))) for s in samples]
    scores = (metric.sentence_score(response, [target]).score for response, target in pairs)
    return [min(score / 100, 1.0) for score in scores]


def rouge(kind: str) -> Score:
    """A function giving ROUGE F1 of each response and target (Lin 2004, aclanthology.org/W04-1013).

    Args:
        kind: "rouge1", "rouge2" (n-grams) or "rougeL" (longest common subsequence); words are
            lowercased, and those in ASCII are rouge-score's, stemmed.
    """

    def score(samples: Sequence[Sample]) -> list[float]:
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer([kind], tokenizer=RougeTokenizer())
        return [scorer.score(s.target, s.response)[kind].fmeasure for s in samples]

    return score


def normalise(text: str) -> str:
    """Lowercase, without punctuation, articles and extra spaces, as SQuAD compares answers.

    Words of scripts without spaces are set apart.

    >>> normalise(" The  cat, a dog!"), normalise("\u00bfQue\u0301? 电影")
    ('cat dog', 'qué 电 影')
    """
    kept = TAKEN_OUT.sub("", fold(text))
    return " ".join(spread(SKIPPED.sub(" ", kept)).split())


def token_f1(samples: Sequence[Sample]) -> list[float]:
    """F1 of the words that response and target share, as in SQuAD (arXiv:1606.05250)."""
    return [_f1(normalise(s.response).split(), normalise(s.target).split()) for s in samples]


def _f1(response: list[str], target: list[str]) -> float:
    if not response or not target:
        return float(response == target)
    shared = sum((Counter(response) & Counter(target)).values())
    return 2 * shared / (len(response) + len(target))


def exact_match(samples: Sequence[Sample]) -> list[float]:
    """1 where response and target are equal after `normalise`, else 0 (arXiv:1606.05250)."""
    return [float(normalise(s.response) == normalise(s.target)) for s in samples]


def vader(samples: Sequence[Sample]) -> list[float]:
    """VADER's compound sentiment of prompt and response, in [-1, 1] (Hutto & Gilbert 2014)."""
    warn_of_other_scripts("vader", "is a list of English words", (s.full for s in samples))
    return [_compound(s.full) for s in samples]


def vader_response(samples: Sequence[Sample]) -> list[float]:
    """VADER's compound sentiment of the response alone, in [-1, 1]."""
    responses = (s.response for s in samples)
    warn_of_other_scripts("vader_response", "is a list of English words", responses)
    return [_compound(s.response) for s in samples]


def _compound(text: str) -> float:
    return float(_vader_analyzer().polarity_scores(text)["compound"])


@lru_cache(maxsize=1)
def _vader_analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def response_words(samples: Sequence[Sample]) -> list[float]:
    """Words in each response: what stands between white space, or a script's words without it."""
    return [float(len(chunks(s.response))) for s in samples]


def distinct(responses: Sequence[str], n: int, *, group: int = GROUP) -> list[float]:
    """Share of different n-grams among all n-grams, for each group of responses.

    Distinct-n (Li et al. 2016, arXiv:1510.03055) falls as more text is counted together. Fixed
    groups of consecutive responses make it independent of the number of prompts, and give values
    to bootstrap over. An incomplete last group is dropped unless it is the only one.

    Args:
        responses: texts; words are lowercased, as `mht.data.text.words` has them.
        n: length of the n-grams.
        group: responses in a group.

    Returns:
        A value in [0, 1] per group; 0 for a group without any n-gram.

    >>> distinct(["a b a b"], 2)
    [0.6666666666666666]
    """
    size = min(group, len(responses))
    stops = range(size, len(responses) + 1, size) if size else range(0)
    return [_distinct(responses[stop - size : stop], n) for stop in stops]


def _distinct(responses: Sequence[str], n: int) -> float:
    grams: list[tuple[str, ...]] = []
    for response in responses:
        grams += _ngrams(response, n)
    return len(set(grams)) / len(grams) if grams else 0.0


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    found = words(fold(text))
    return list(zip(*(found[i:] for i in range(n)), strict=False))


def repetition(responses: Sequence[str], n: int = REPEATED) -> list[float]:
    """Share of the n-grams within each response that occurred earlier in it.

    seq-rep-n of Welleck et al. 2019 (arXiv:1908.04319), over words where the paper has tokens:
    ``1 - different n-grams / all n-grams``. A response without any n-gram repeats nothing.

    Args:
        responses: texts; words are lowercased, as `mht.data.text.words` has them.
        n: length of the n-grams.

    >>> repetition(["so good so good so good", "so good"], 2)
    [0.6, 0.0]
    """
    counted = [_ngrams(response, n) for response in responses]
    return [1 - len(set(grams)) / len(grams) if grams else 0.0 for grams in counted]


def _with_target(label: str, meaning: str, score: Score | None) -> Metric:
    return Metric(label, 0, 1, "higher", meaning, score, needs_target=True)


METRICS: dict[str, Metric] = {
    "p_positive": Metric(
        "P(positive)", 0, 1, "higher", "the judge's probability that prompt + response is positive"
    ),
    "vader": Metric(
        "VADER", -1, 1, "higher", "sentiment by a word list that was never a reward", vader
    ),
    "vader_response": Metric(
        "VADER, response", -1, 1, "higher", "the same for the response alone", vader_response
    ),
    "response_length": Metric("Length", 0, None, "neither", "tokens in the response, EOS included"),
    "response_words": Metric(
        "Length in words", 0, None, "neither", "words in the response", response_words
    ),
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
    "bleu": _with_target("BLEU", "n-gram precision against the target", bleu),
    "rouge_1": _with_target("ROUGE-1", "word overlap with the target, F1", rouge("rouge1")),
    "rouge_2": _with_target("ROUGE-2", "word-pair overlap with the target, F1", rouge("rouge2")),
    "rouge_l": _with_target(
        "ROUGE-L", "longest common subsequence with the target, F1", rouge("rougeL")
    ),
    "token_f1": _with_target("Token F1", "words shared with the target, as in SQuAD", token_f1),
    "exact_match": _with_target("Exact match", "equal to the target, as in SQuAD", exact_match),
    "bertscore": Metric(
        "BERTScore",
        -1,
        1,
        "higher",
        "soft word overlap with the target by embeddings, F1",
        needs_target=True,
    ),
}
