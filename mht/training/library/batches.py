"""Batches of a user's own loop, checked and turned into the tensors that the steps work on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mht.core.errors import DataError, RewardError
from mht.data.examples.example import IGNORED
from mht.generation.sampling.padding import content_mask, left_padded

COLLATE = "give the DataLoader collate_fn=trainer.collate, which makes token ids of its rows"


def matrix(name: str, values: Any, fill: int = 0) -> Tensor:
    """The whole numbers of a batch as one tensor.

    Args:
        name: of the argument or the key, for messages.
        values: (B, T) as a tensor, an array, or B lists, which may differ in length. A list of T
            tensors (B,) is what a DataLoader makes of rows that are lists.
        fill: lengthens the shorter lists.

    Returns:
        (B, T) int64.

    Raises:
        DataError: it is none of these, or has no row.
    """
    if isinstance(values, Tensor | np.ndarray):
        tensor = torch.as_tensor(values) if _is_numeric(values) else None
    else:
        tensor = _of_rows(name, values, fill)
    if tensor is None or tensor.dim() != 2 or not tensor.numel():
        of_numbers = isinstance(values, Tensor | np.ndarray)
        got = f"shape {tuple(values.shape)}" if of_numbers else f"{values!r:.80}"
        raise DataError(f"{name}: should be (rows, tokens) whole numbers, got {got}")
    if tensor.is_floating_point() and not torch.equal(tensor, tensor.round()):
        raise DataError(f"{name}: should be whole numbers, got {tensor.dtype} with fractions")
    return tensor.long()


def _is_numeric(values: Tensor | np.ndarray) -> bool:
    return isinstance(values, Tensor) or values.dtype.kind in "biuf"


def _of_rows(name: str, values: Any, fill: int) -> Tensor | None:
    has_rows = hasattr(values, "__len__") and not isinstance(values, str | bytes | Mapping)
    rows = list(values) if has_rows else []
    if rows and all(isinstance(row, Tensor) for row in rows):
        if any(row.dim() != 1 or len(row) != len(rows[0]) for row in rows):
            raise DataError(f"{name}: a list of tensors of different shapes: {COLLATE}")
        return torch.stack(rows, 1)
    if not rows or any(isinstance(row, str) or not hasattr(row, "__len__") for row in rows):
        return None
    width = max(map(len, rows))
    try:
        return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
    except (TypeError, ValueError, RuntimeError):  # a text, None, or a deeper list in a row
        return None


def _mask(name: str, values: Any, like: Tensor) -> Tensor:
    """(B, T) bool of a mask of ones and zeros in any type."""
    mask = _like(name, matrix(name, values), like)
    if not ((mask == 0) | (mask == 1)).all():
        raise DataError(f"{name}: should hold 1 for a real token and 0 for padding, got others")
    return mask.bool()


def _like(name: str, values: Tensor, ids: Tensor) -> Tensor:
    if values.shape != ids.shape:
        raise DataError(f"{name}: has shape {tuple(values.shape)}, its ids {tuple(ids.shape)}")
    return values.to(ids.device)


def ids_and_mask(
    name: str, ids: Any, mask: Any, *, pad_id: int, vocabulary: int, mask_name: str
) -> tuple[Tensor, Tensor]:
    """Token ids (B, T) int64, PAD where the mask says padding, and the mask (B, T) bool.

    Args:
        name: of the ids, for messages.
        ids: see `matrix`.
        mask: 1 = a real token; None takes the runs of PAD at a row's ends as padding.
        pad_id: the tokenizer's PAD.
        vocabulary: ids are below it.
        mask_name: of the mask, for messages.

    Raises:
        DataError: they don't fit each other or the model.
    """
    tokens = matrix(name, ids, pad_id)
    real = content_mask(tokens, pad_id) if mask is None else _mask(mask_name, mask, tokens)
    tokens = tokens.masked_fill(~real, pad_id)
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocabulary:
        wrong = low if low < 0 else high
        hint = f"; if it fills up rows, give {mask_name}" if mask is None else ""
        raise DataError(f"{name}: token {wrong}, but the model has 0 to {vocabulary - 1}{hint}")
    return tokens, real


def prompts(ids: Any, mask: Any, **tokens: int) -> tuple[Tensor, Tensor]:
    """Left-padded prompts (B, P) int64 and their mask (B, P) bool; see `ids_and_mask`."""
    found = ids_and_mask("input_ids", ids, mask, mask_name="attention_mask", **tokens)
    return left_padded(*found, tokens["pad_id"])


def responses(ids: Any, mask: Any, **tokens: int) -> tuple[Tensor, Tensor | None]:
    """Responses (B, R) int64 and their mask (B, R) bool, if it is given; see `ids_and_mask`."""
    found, real = ids_and_mask("response_ids", ids, mask, mask_name="response_mask", **tokens)
    return found, None if mask is None else real


def sft_batch(batch: Any, **tokens: int) -> dict[str, Tensor]:
    """The three tensors of an SFT batch; its other keys are left out.

    Args:
        batch: ``input_ids`` and ``labels`` (-100 = not trained on), and ``attention_mask`` (1 = a
            real token), without which the runs of PAD at a row's ends are padding.
        **tokens: ``pad_id`` and ``vocabulary``, see `ids_and_mask`.

    Returns:
        (B, T) int64 each; labels are -100 on padding too.

    Raises:
        DataError: something lacks, does not fit, or leaves nothing to learn.
    """
    if not isinstance(batch, Mapping):
        raise DataError(f"sft_step: needs a dict of input_ids and labels, got {batch!r:.80}")
    missing = [name for name in ("input_ids", "labels") if name not in batch]
    if missing:
        has = ", ".join(map(str, batch)) or "nothing"
        hint = f": {COLLATE}" if "input_ids" in missing else ", -100 where nothing is learnt"
        raise DataError(f"sft_step: the batch has {has}, but no {' and no '.join(missing)}{hint}")
    given = (batch["input_ids"], batch.get("attention_mask"))
    ids, mask = ids_and_mask("input_ids", *given, mask_name="attention_mask", **tokens)
    labels = _like("labels", matrix("labels", batch["labels"], IGNORED), ids)
    labels = labels.masked_fill(~mask, IGNORED)
    learnt, last = labels[labels != IGNORED], tokens["vocabulary"] - 1
    if ((learnt < 0) | (learnt > last)).any():
        raise DataError(f"labels: should be -100 or a token from 0 to {last}")
    if not ((labels[:, 1:] != IGNORED) & mask[:, :-1]).any():
        raise DataError(
            "labels: the batch has nothing to learn: every label is -100, on padding, or stands "
            "first in its row"
        )
    return {"input_ids": ids, "attention_mask": mask.long(), "labels": labels}


def scores(rewards: Any, count: int) -> list[float]:
    """B finite numbers, from a list, an array, a tensor (B,) or (B, 1), or one number for B = 1.

    Raises:
        RewardError: it is none of these.
    """
    try:
        given = np.asarray(rewards.tolist() if isinstance(rewards, Tensor) else rewards, float)
    except (TypeError, ValueError):  # a text, None, or lists of different lengths
        given = np.zeros(0)
    fits = given.shape in ((count,), (count, 1)) or given.size == count == 1
    if not fits or not np.isfinite(given).all():
        got = f"shape {given.shape}" if given.ndim > 1 else f"{rewards!r:.80}"
        raise RewardError(
            f"rewards: should be a finite score for each of {count} responses, got {got}"
        )
    return [float(score) for score in given.ravel()]
