"""BERTScore of responses against targets, on any local encoder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from mht.core.errors import ModelError
from mht.core.model_files.checks import check_weights
from mht.core.model_files.folder import check_files, reading
from mht.data.text.sample import Sample
from mht.data.text.special import broken_up
from mht.data.text.truncation import MOST_TOKENS, token_limit


def bertscore(
    samples: Sequence[Sample], model: str, layer: int, *, batch_size: int = 32, device: str = "cpu"
) -> list[float]:
    """BERTScore F1 of each response and target (Zhang et al. 2020, arXiv:1904.09675).

    Raw values, without the library's rescaling by a baseline (there is none for most encoders), so
    unrelated English texts already reach about 0.4. A blank response gets 0, as the library
    defines. The batches are ours: the library's own go through a set of strings, whose order, and
    so the last bits of the result, changes between processes.

    Args:
        samples: with targets.
        model: an encoder's folder or hub name.
        layer: its hidden states after this many layers are compared.
        batch_size: texts encoded at once.
        device: where the encoder runs.

    Raises:
        ModelError: no encoder there, or it has fewer layers.
    """
    found = [i for i, s in enumerate(samples) if s.response.strip() and s.target.strip()]
    scores = [0.0] * len(samples)
    for start in range(0, len(found), batch_size):
        chunk = found[start : start + batch_size]
        batch = _f1([samples[i] for i in chunk], model, layer, device)
        for i, value in zip(chunk, batch, strict=True):
            scores[i] = value
    return scores


def _f1(samples: Sequence[Sample], model: str, layer: int, device: str) -> list[float]:
    from bert_score.utils import get_bert_embedding, greedy_cos_idf

    tokenizer, encoder = _encoder(model, layer, device)
    weights: dict[int, float] = defaultdict(lambda: 1.0)
    weights |= {tokenizer.sep_token_id: 0.0, tokenizer.cls_token_id: 0.0}
    target, response = (
        get_bert_embedding(
            [broken_up(text, tokenizer) for text in texts],
            encoder,
            tokenizer,
            weights,
            device=device,
        )
        for texts in ([s.target for s in samples], [s.response for s in samples])
    )
    return [float(f1) for f1 in greedy_cos_idf(*target, *response)[2]]


@lru_cache(maxsize=1)
def _encoder(model: str, layer: int, device: str) -> tuple[Any, Any]:
    from bert_score.utils import get_model, get_tokenizer
    from transformers import AutoConfig

    with reading(f"evaluate.bertscore_model: {model} is no encoder"):
        check_files(model)
        config = AutoConfig.from_pretrained(model)
        tokenizer = get_tokenizer(model, use_fast=True)
        layers = config.num_hidden_layers
        if layer > layers:
            raise ModelError(f"evaluate.bertscore_layer: {model} has {layers} layers, got {layer}")
        encoder = get_model(model, layer).to(device)
        check_weights(encoder)
    limit = token_limit(encoder, tokenizer)
    tokenizer.model_max_length = limit or MOST_TOKENS  # what bert-score cuts by
    return tokenizer, encoder
