"""Trains a reward model on people's judgements and measures it on held-out ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mht.data.text.special import broken_up
from mht.reward_models.calibration import Row, compared_quality, labelled_quality, rated_quality
from mht.reward_models.classifier import load_tokenizer, outputs, train_classifier
from mht.reward_models.judged import (
    Compared,
    Rated,
    Rows,
    Text,
    split_compared,
    split_labelled,
    split_rated,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mht.config import RewardModelConfig


@dataclass(frozen=True)
class Learnt:
    """A reward model.

    Attributes:
        model: with one output for each class, or one score.
        tokenizer: its own.
        figures: of the held-out judgements.
        bins: its calibration on them.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    figures: Row
    bins: list[Row]


def learn(
    kind: str,
    rows: Rows,
    folder: str,
    config: RewardModelConfig,
    *,
    seed: int,
    device: torch.device,
    log: Callable[[dict[str, float], int], None],
) -> Learnt:
    """Train on the judgements except a holdout, and measure on the holdout.

    Args:
        kind: of the judgements: "ratings", "labels" or "preferences".
        rows: the judgements.
        folder: the encoder's.
        config: epochs, learning rate, layers, holdout.
        seed: of the split, the new head and the order.
        device: where to train.
        log: called with each step's loss.

    Raises:
        DataError: too few judgements, or all are equal.
        ModelError: the folder holds no encoder, or not one that these settings fit.
    """
    train, held = split(kind, rows, folder, config, seed)
    model, tokenizer = train_classifier(folder, train, config, seed=seed, device=device, log=log)

    def logits(texts: Sequence[Text]) -> torch.Tensor:
        return outputs(model, tokenizer, texts, max_tokens=config.max_tokens)

    if isinstance(held, Compared):
        model.config.reads_text = config.text  # so that it is never scored on something else
        figures, bins = compared_quality(logits(held.chosen)[:, 0], logits(held.rejected)[:, 0])
    elif kind == "labels":
        figures, bins = labelled_quality(logits(held.texts).softmax(-1), held.labels)
    else:
        positive = logits(held.texts).softmax(-1)[:, 1].tolist()
        figures, bins = rated_quality(positive, held.labels)
    return Learnt(model, tokenizer, figures, bins)


def split(
    kind: str, rows: Rows, folder: str, config: RewardModelConfig, seed: int
) -> tuple[Rated, Rated] | tuple[Compared, Compared]:
    """The judgements to train on, and the held-out ones."""
    tokenizer = load_tokenizer(folder)
    if kind == "preferences":
        return split_compared(rows, config, tokenizer, seed=seed)
    rows = [{**row, "text": broken_up(row["text"], tokenizer)} for row in rows]
    if kind == "labels":
        return split_labelled(rows, holdout=config.holdout, seed=seed)
    texts, ratings = [row["text"] for row in rows], [row["rating"] for row in rows]
    return split_rated(texts, ratings, neutral=config.neutral, holdout=config.holdout, seed=seed)
