"""Rewards that compare response and target by meaning: cosine_sts, bertscore."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

from mht.core.errors import MissingPackage, ModelError
from mht.core.model_files.checks import check_weights
from mht.data.text.sample import Sample
from mht.data.text.special import broken_up
from mht.data.text.truncation import MOST_TOKENS, cut_note, token_counts, token_limit, valid_unicode
from mht.rewards.base import Device, Positive, Range, TargetReward, reward
from mht.rewards.learned.model_reward import ModelReward
from mht.rewards.models.sentence_encoder import embed
from mht.rewards.models.shared import load, quiet


@reward("cosine_sts", "sts")
class CosineSTS(TargetReward, ModelReward):
    """``(cos + 1) / 2`` of the two texts' sentence embeddings, in [0, 1].

    Reimers & Gurevych 2019 (arXiv:1908.10084).

    Attributes:
        model: folder or hub name of a sentence-transformers model.
    """

    needs: ClassVar[str] = "a target; a sentence-transformers model, such as data/raw/encoder"

    model: str = "sentence-transformers/all-MiniLM-L6-v2"

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The mapped cosine."""
        pairs = self.pairs(samples)
        texts = [text for pair in pairs for text in pair]
        rows = embed(
            texts,
            self.model,
            self.device,
            self.batch_size,
            needed_by="cosine_sts",
            warn=self.warn_once,
        )
        cosines = (rows[0::2] * rows[1::2]).sum(-1)
        return ((cosines + 1) / 2).clamp(0, 1).tolist()


@reward("bertscore")
class BertScore(TargetReward):
    """BERTScore F1 of response and target (bert-score). Zhang et al. 2020 (arXiv:1904.09675).

    About [0, 1] as it comes; rescaled it may pass both ends. A blank response or target gives 0.0.

    Attributes:
        model_type: folder or hub name of an encoder.
        num_layers: whose hidden states are compared; null is bert-score's choice, which it has for
            the models it knows by name.
        rescale_with_baseline: map the average of unrelated pairs to 0, for the models that
            bert-score has a baseline of.
        lang: the baseline's language.
        device: "auto" (a GPU if there is one) or a torch device.
        batch_size: pairs per forward pass.
    """

    needs: ClassVar[str] = "a target; bert-score and an encoder"
    score_range: ClassVar[Range] = (-1.0, 1.0)
    range_note: ClassVar[str] = "about 0 to 1 in use"

    model_type: str = "roberta-large"
    num_layers: Positive | None = None
    rescale_with_baseline: bool = False
    lang: str = "en"
    device: Device = "auto"
    batch_size: Positive = 32

    def models(self) -> tuple[str, ...]:
        """The encoder."""
        return (self.model_type,)

    def bounds(self) -> Range:
        """Cosines' range; rescaled by a baseline it has no finite lower end that holds for all."""
        return (-math.inf, 1.0) if self.rescale_with_baseline else self.score_range

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The F1.

        The batches are ours: bert-score's own go through a set of strings, whose order, and so the
        last bits of the result, changes between processes.
        """
        pairs = [(valid_unicode(a), valid_unicode(b)) for a, b in self.pairs(samples)]
        filled = [i for i, pair in enumerate(pairs) if all(text.strip() for text in pair)]
        scores = [0.0] * len(pairs)
        scorer = self._scorer()
        pairs = [broken_up(pair, scorer._tokenizer) for pair in pairs]
        if filled:
            self._warn_of_long(scorer._tokenizer, [pairs[i] for i in filled])
        for start in range(0, len(filled), self.batch_size):
            batch = filled[start : start + self.batch_size]
            for i, f1 in zip(batch, _f1(scorer, [pairs[i] for i in batch]), strict=True):
                scores[i] = f1
        return scores

    def _warn_of_long(self, tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> None:
        counts = token_counts([text for pair in pairs for text in pair], tokenizer)
        if max(counts) > tokenizer.model_max_length:
            self.warn_once(cut_note(tokenizer.model_max_length))

    def _scorer(self) -> Any:
        try:
            from bert_score.utils import model2layers
        except ImportError:
            raise MissingPackage("bert-score", "bertscore") from None
        layers = self.num_layers or model2layers.get(self.model_type)
        if layers is None:
            raise ModelError(
                f"bert-score knows no best layer of {self.model_type!r}: set num_layers"
            )
        baseline = self._baseline(layers) if self.rescale_with_baseline else None
        return load(
            self.model_type, self.device, "encoder", _bert_scorer, layers, self.lang, baseline
        )

    def _baseline(self, layers: int) -> str:
        from importlib.resources import files

        path = files("bert_score") / "rescale_baseline" / self.lang / f"{self.model_type}.tsv"
        if not path.is_file():
            raise ModelError(
                f"bert-score has no {self.lang!r} baseline of {self.model_type!r}: "
                "set rescale_with_baseline to false"
            )
        return str(path)


def _f1(scorer: Any, pairs: Sequence[Sequence[str]]) -> list[float]:
    """The F1 of each response and target of one batch."""
    from bert_score.utils import get_bert_embedding, greedy_cos_idf

    tokenizer = scorer._tokenizer
    weights: dict[int, float] = defaultdict(lambda: 1.0)
    weights |= {tokenizer.sep_token_id: 0.0, tokenizer.cls_token_id: 0.0}
    with quiet():
        target, response = (
            get_bert_embedding(texts, scorer._model, tokenizer, weights, device=scorer.device)
            for texts in ([b for _, b in pairs], [a for a, _ in pairs])
        )
    f1 = greedy_cos_idf(*target, *response)[2]
    if scorer.rescale_with_baseline:
        unrelated = scorer.baseline_vals[2]
        f1 = (f1.cpu() - unrelated) / (1 - unrelated)
    return [float(value) for value in f1]


def _bert_scorer(folder: str, device: str, layers: int, lang: str, baseline: str | None) -> Any:
    from bert_score import BERTScorer

    scorer = BERTScorer(
        model_type=folder,
        num_layers=layers,
        device=device,
        lang=lang,
        rescale_with_baseline=baseline is not None,
        baseline_path=baseline,
    )
    check_weights(scorer._model)
    limit = token_limit(scorer._model, scorer._tokenizer)
    scorer._tokenizer.model_max_length = limit or MOST_TOKENS  # what bert-score cuts by
    return scorer
