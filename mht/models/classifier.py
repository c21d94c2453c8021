"""A sentiment classifier from rated texts: an encoder with a new head, fine-tuned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mht.errors import DataError, ModelError
from mht.order import bucketed
from mht.progress import track

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mht.config import RewardModelConfig

LABELS = {0: "negative", 1: "positive"}
BINS = 10


@dataclass(frozen=True)
class Rated:
    """Texts with their labels: 1 = positive."""

    texts: list[str]
    labels: list[int]


def split_rated(
    texts: Sequence[str], ratings: Sequence[float], *, neutral: float, holdout: float, seed: int
) -> tuple[Rated, Rated]:
    """Training and held-out texts, those rated close to 0 left out.

    Raises:
        DataError: too few texts are left, or all have one label.
    """
    clear = [(t, int(r > 0)) for t, r in zip(texts, ratings, strict=True) if abs(r) > neutral]
    order = torch.randperm(len(clear), generator=torch.Generator().manual_seed(seed)).tolist()
    cut = round(len(clear) * holdout)
    parts = [[clear[i] for i in order[cut:]], [clear[i] for i in order[:cut]]]
    for name, part in zip(("training", "held-out"), parts, strict=True):
        if len({label for _, label in part}) < 2:
            raise DataError(
                f"data.labels: of {len(texts)} rated texts {len(part)} are left as {name} texts, "
                "and they are not of both kinds (rating above and below 0): give more rated texts, "
                "or lower reward_model.neutral"
            )
    train, held = (Rated([t for t, _ in p], [y for _, y in p]) for p in parts)
    return train, held


def load_encoder(folder: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The encoder with a new two-label head, and its tokenizer.

    Raises:
        ModelError: the folder holds no encoder.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    names = {"id2label": LABELS, "label2id": {name: i for i, name in LABELS.items()}}
    try:
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, **names)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"reward_model.encoder: {folder} holds no encoder ({reason})") from None
    if tokenizer.pad_token_id is None:
        raise ModelError(f"reward_model.encoder: the tokenizer of {folder} has no padding token")
    return model, tokenizer


def _check_fits(model: PreTrainedModel, config: RewardModelConfig) -> None:
    room = getattr(model.config, "max_position_embeddings", None)
    if room is not None and config.max_tokens > room:
        raise ModelError(
            f"reward_model.max_tokens: {config.max_tokens} is more than the encoder's {room}"
        )


def train_classifier(
    folder: str,
    train: Rated,
    config: RewardModelConfig,
    *,
    seed: int,
    device: torch.device,
    log: Callable[[dict[str, float], int], None],
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Fine-tune the encoder on the labels by cross-entropy.

    Args:
        folder: the encoder's.
        train: texts and labels.
        config: how long, how fast, how many layers.
        seed: of the new head and the order of the texts.
        device: where to train.
        log: called with each step's loss.

    Raises:
        ModelError: the folder holds no encoder, or not one that these settings fit.
    """
    from transformers import get_scheduler

    torch.manual_seed(seed)
    model, tokenizer = load_encoder(folder)
    _check_fits(model, config)
    model.to(device).eval()  # without dropout
    _freeze(model, config)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=0.01)
    steps = config.epochs * -(-len(train.texts) // config.batch_size)
    scheduler = get_scheduler("linear", optimizer, steps // 10, steps)
    batches = _batches(train, tokenizer, config, seed)
    with track(batches, "classifier", total=steps) as bar:
        for step, (batch, labels) in enumerate(batches, start=1):
            logits = model(**batch.to(device)).logits
            loss = functional.cross_entropy(logits, labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            scheduler.step()
            log({"reward_model/loss": loss.item()}, step)
            bar.figures(loss=loss.item())
            bar.advance()
    return model, tokenizer


def _freeze(model: PreTrainedModel, config: RewardModelConfig) -> None:
    """Train the head and the top layers only, where the settings say so."""
    wanted = config.num_layers_unfrozen
    if wanted == "all":
        return
    layers = _encoder_layers(model)
    if wanted > len(layers):
        raise ModelError(
            f"reward_model.num_layers_unfrozen: {wanted} is more than the encoder's {len(layers)}"
        )
    model.base_model.requires_grad_(False)
    for layer in list(layers)[len(layers) - wanted :]:
        layer.requires_grad_(True)
    if getattr(model.base_model, "pooler", None) is not None:
        model.base_model.pooler.requires_grad_(True)


def _encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    count = model.config.num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ModelError(
        f"reward_model.num_layers_unfrozen: {type(model).__name__} has no list of {count} layers; "
        "set it to 'all'"
    )


def _batches(
    rated: Rated, tokenizer: PreTrainedTokenizerBase, config: RewardModelConfig, seed: int
) -> Iterator[tuple[Any, Tensor]]:
    shuffle = torch.Generator().manual_seed(seed)
    lengths = [len(text) for text in rated.texts]
    for _ in range(config.epochs):
        order = bucketed(lengths, config.batch_size, shuffle)
        for start in range(0, len(order), config.batch_size):
            batch = order[start : start + config.batch_size]
            labels = torch.tensor([rated.labels[i] for i in batch])
            yield _encode(tokenizer, [rated.texts[i] for i in batch], config.max_tokens), labels


def _encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> Any:
    return tokenizer(
        list(texts), return_tensors="pt", padding=True, truncation=True, max_length=max_tokens
    )


@torch.no_grad()
def p_positive(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_tokens: int,
    batch_size: int = 64,
) -> list[float]:
    """The probability of the label "positive" for each text."""
    found: list[float] = []
    for start in range(0, len(texts), batch_size):
        batch = _encode(tokenizer, texts[start : start + batch_size], max_tokens)
        logits = model(**batch.to(model.device)).logits
        found += logits.float().softmax(-1)[:, 1].tolist()
    return found


def quality(probabilities: Sequence[float], labels: Sequence[int]) -> dict[str, float]:
    """Accuracy, area under the ROC curve, Brier score and expected calibration error.

    The calibration error is Guo et al. 2017 (arXiv:1706.04599) with 10 equal bins of P(positive).
    """
    from sklearn.metrics import brier_score_loss, roc_auc_score

    right = [(p > 0.5) == bool(y) for p, y in zip(probabilities, labels, strict=True)]
    error = sum(
        row["share"] * abs(row["predicted"] - row["observed"])
        for row in calibration(probabilities, labels)
    )
    return {
        "accuracy": sum(right) / len(right),
        "auc": float(roc_auc_score(labels, probabilities)),
        "brier": float(brier_score_loss(labels, probabilities)),
        "calibration_error": error,
        "held_out_texts": float(len(labels)),
    }


def calibration(probabilities: Sequence[float], labels: Sequence[int]) -> list[dict[str, float]]:
    """For each filled bin of P(positive): mean prediction, observed share, share of the texts."""
    rows = []
    for b in range(BINS):
        members = [
            (p, y)
            for p, y in zip(probabilities, labels, strict=True)
            if min(int(p * BINS), BINS - 1) == b
        ]
        if members:
            rows.append(
                {
                    "predicted": sum(p for p, _ in members) / len(members),
                    "observed": sum(y for _, y in members) / len(members),
                    "share": len(members) / len(labels),
                }
            )
    return rows
