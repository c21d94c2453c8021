"""Rows of token ids, as collators have them, as examples: which tokens are prompt, which target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import groupby
from typing import Any

from mht.core.errors import DataError
from mht.data.examples.example import IGNORED, Example
from mht.data.text.texts import Codec

IDS, MASK, LABELS = "input_ids", "attention_mask", "labels"
LEARNT_MASKS = ("completion_mask", "assistant_masks")  # of TRL: 1 = trained on
OF_TOKENS = (IDS, MASK, LABELS, *LEARNT_MASKS, "token_type_ids", "position_ids", "length")


def is_token_row(row: Mapping[str, Any]) -> bool:
    """Whether a row has token ids and says which of them are learnt."""
    return IDS in row and any(name in row for name in (LABELS, *LEARNT_MASKS))


def token_examples(
    row: Mapping[str, Any], where: str, codec: Codec, *, pad_id: int | None, vocabulary: int
) -> list[Example]:
    """An example for each stretch of labels in a row; what is before it is its prompt.

    The first token of a row has nothing to be predicted from: it belongs to the prompt.

    Args:
        row: ``input_ids``, ``labels`` (-100 = not trained on) or a mask of TRL (1 = trained on),
            and ``attention_mask`` (1 = a real token). Without an attention mask, runs of PAD at the
            ends are padding. Other columns become the item.
        where: its place, for messages.
        codec: of the model's tokenizer.
        pad_id: the tokenizer's PAD.
        vocabulary: ids are below it.

    Raises:
        DataError: the lists do not fit each other or the model, or nothing is learnt.
    """
    ids = _numbers(row, IDS, where)
    labels = _labels(row, ids, where)
    real = _real(row, ids, pad_id, where)
    kept = [(i, label) for i, label, is_real in zip(ids, labels, real, strict=True) if is_real]
    _check(kept, where, vocabulary)
    item = {name: value for name, value in row.items() if name not in OF_TOKENS}
    found = [
        _example([i for i, _ in kept], start, end, codec, item) for start, end in _stretches(kept)
    ]
    if not found:
        raise DataError(f"{where}: labels: nothing to learn, every one is -100 or stands first")
    return found


def _example(
    ids: list[int], start: int, end: int, codec: Codec, item: Mapping[str, Any]
) -> Example:
    prompt, target = ids[:start], ids[start:end]
    key = sha256(repr((prompt, target)).encode()).hexdigest()[:16]
    text = codec.response_text(prompt, target)
    return Example(key, codec.decode(prompt), text, prompt, target, item, "")


def _stretches(kept: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Begin and end of each run of labels, without the row's first token."""
    numbers = range(1, len(kept))
    runs = [(k, list(g)) for k, g in groupby(numbers, lambda i: kept[i][1] != IGNORED)]
    return [(run[0], run[-1] + 1) for is_learnt, run in runs if is_learnt]


def _numbers(row: Mapping[str, Any], name: str, where: str) -> list[int]:
    values = row[name].tolist() if hasattr(row[name], "tolist") else row[name]
    if not isinstance(values, Sequence) or isinstance(values, str) or not len(values):
        raise DataError(f"{where}: {name} should be a list of whole numbers, got {values!r:.60}")
    wrong = next((v for v in values if not _is_whole(v)), None)
    if wrong is not None or None in values:
        raise DataError(f"{where}: {name} should hold whole numbers, got {wrong!r:.60}")
    return [int(v) for v in values]


def _is_whole(value: Any) -> bool:
    return hasattr(value, "__index__") or (isinstance(value, float) and value.is_integer())


def _labels(row: Mapping[str, Any], ids: Sequence[int], where: str) -> list[int]:
    if LABELS in row:
        return _alongside(row, LABELS, ids, where)
    name = next(name for name in LEARNT_MASKS if name in row)
    mask = _alongside(row, name, ids, where)
    return [i if learnt else IGNORED for i, learnt in zip(ids, mask, strict=True)]


def _real(row: Mapping[str, Any], ids: Sequence[int], pad_id: int | None, where: str) -> list[bool]:
    if row.get(MASK) is not None:
        return [bool(v) for v in _alongside(row, MASK, ids, where)]
    content = [place for place, i in enumerate(ids) if i != pad_id]
    first, last = (content[0], content[-1]) if content else (0, -1)
    return [first <= place <= last for place in range(len(ids))]


def _alongside(row: Mapping[str, Any], name: str, ids: Sequence[int], where: str) -> list[int]:
    values = _numbers(row, name, where)
    if len(values) != len(ids):
        raise DataError(f"{where}: {name} has {len(values)} numbers, {IDS} {len(ids)}")
    return values


def _check(kept: Sequence[tuple[int, int]], where: str, vocabulary: int) -> None:
    outside = next((i for i, _ in kept if not 0 <= i < vocabulary), None)
    if outside is not None:
        raise DataError(
            f"{where}: {IDS} has token {outside}, but the model has 0 to {vocabulary - 1}"
        )
    moved = next((pair for pair in kept if pair[1] not in (IGNORED, pair[0])), None)
    if moved is not None:
        raise DataError(
            f"{where}: {LABELS} has {moved[1]} where {IDS} has {moved[0]}: a label is its own "
            "token or -100; the shift by one is made in the loss"
        )
