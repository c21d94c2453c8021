"""Text metrics of responses, each with a value per response.

Those that are rewards too are these rewards. Texts are compared in Unicode NFC. In scripts without
spaces each character is a word (`words`). A metric that compares with the target gives NaN for a
sample without one and is left out where no sample has one. Nothing here is a sum over the test
set: summaries and intervals are made from the per-response values by `mht.evaluation.summary`.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import regex

from mht.core.errors import ModelError
from mht.data.text.rouge import RougeTokenizer
from mht.data.text.sample import Sample
from mht.data.text.words import chunks, fold, spread, warn_of_other_scripts
from mht.evaluation.metrics import METRICS
from mht.rewards.learned.semantic import BertScore
from mht.rewards.text.overlap import Bleu, RougeL

Score = Callable[[Sequence[Sample]], list[float]]

NAN = float("nan")
# SQuAD takes out punctuation in ASCII; a typographic apostrophe or hyphen is the same thing
TAKEN_OUT = regex.compile(rf"[{regex.escape(string.punctuation)}\u2018\u2019\u2010\u2011]")
SKIPPED = regex.compile(r"\b(?:a|an|the)\b|\p{P}")  # articles, and punctuation of other scripts


def text_metrics(
    samples: Sequence[Sample],
    *,
    bertscore_model: str | None = None,
    bertscore_layer: int = 5,
) -> dict[str, list[float]]:
    """Every text metric's value for each sample, keyed by the metric's name.

    Args:
        samples: prompts with responses, and targets where there are any.
        bertscore_model: a local encoder's folder or hub name; None leaves BERTScore out.
        bertscore_layer: whose hidden states BERTScore compares.

    Returns:
        Lists as long as ``samples``. Metrics against the target are NaN where a sample has none,
        and absent where no sample has one.
    """
    with_target = [sample for sample in samples if sample.target.strip()]
    scores = dict(SCORES)
    if bertscore_model is not None:
        scores["bertscore"] = bertscore(bertscore_model, bertscore_layer)
    values = {}
    for name, score in scores.items():
        if not METRICS[name].needs_target:
            values[name] = score(samples)
        elif with_target:
            values[name] = _spread(samples, score(with_target))
    return dict(sorted(values.items()))


def _spread(samples: Sequence[Sample], scores: Sequence[float]) -> list[float]:
    """Put the values of the samples with a target in their places."""
    rest = iter(scores)
    return [next(rest) if sample.target.strip() else NAN for sample in samples]


def bertscore(model: str, layer: int, *, batch_size: int = 32) -> Score:
    """A function giving BERTScore F1 of each response and target, on the CPU.

    Args:
        model: an encoder's folder or hub name.
        layer: its hidden states after this many layers are compared.
        batch_size: texts encoded at once.
    """
    reward = BertScore(model_type=model, num_layers=layer, batch_size=batch_size, device="cpu")

    def score(samples: Sequence[Sample]) -> list[float]:
        try:
            return reward.score(samples)
        except ModelError as error:
            raise ModelError(f"evaluate.bertscore_model, .bertscore_layer: {error}") from error

    return score


def rouge(kind: str) -> Score:
    """A function giving ROUGE F1 of each response and target (Lin 2004, aclanthology.org/W04-1013).

    Args:
        kind: "rouge1" or "rouge2", of words or of pairs of them; words are lowercased, and
            those in ASCII are rouge-score's, stemmed.
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


def vader(name: str, text: Callable[[Sample], str]) -> Score:
    """A function giving VADER's compound sentiment of texts, in [-1, 1] (Hutto & Gilbert 2014).

    Args:
        name: of the metric, for the warning about other scripts.
        text: what of a sample is read.
    """

    def score(samples: Sequence[Sample]) -> list[float]:
        texts = [text(sample) for sample in samples]
        warn_of_other_scripts(name, "is a list of English words", texts)
        return [float(_vader_analyzer().polarity_scores(t)["compound"]) for t in texts]

    return score


@lru_cache(maxsize=1)
def _vader_analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def response_words(samples: Sequence[Sample]) -> list[float]:
    """Words in each response: what stands between white space, or a script's words without it."""
    return [float(len(chunks(s.response))) for s in samples]


SCORES: dict[str, Score] = {  # a key of METRICS to what scores it
    "vader": vader("vader", lambda sample: sample.full),
    "vader_response": vader("vader_response", lambda sample: sample.response),
    "response_words": response_words,
    "bleu": Bleu().score,
    "rouge_1": rouge("rouge1"),
    "rouge_2": rouge("rouge2"),
    "rouge_l": RougeL().score,
    "token_f1": token_f1,
    "exact_match": exact_match,
}
