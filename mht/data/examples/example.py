"""Prepared examples: the record, reading it back, and batches of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mht.core.errors import DataError
from mht.core.outputs import replaced
from mht.data.text.sample import joiner

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100  # the label that cross-entropy leaves out


@dataclass(frozen=True)
class Example:
    """One prompt with its reference answer, as text and as token ids (the record).

    Attributes:
        id: 16 hex digits of the content's sha256.
        prompt: as people read it.
        target: the reference text; it begins with its space where it continues the prompt.
        prompt_ids: what the model is given.
        target_ids: the target's tokens, then EOS unless it was cut.
        item: the row's other columns.
        joiner: what stands between prompt and target; None takes what
            `mht.data.text.sample.joiner` says.
    """

    id: str
    prompt: str
    target: str
    prompt_ids: list[int]
    target_ids: list[int]
    item: Mapping[str, Any] = field(default_factory=dict)
    joiner: str | None = None


def read_examples(path: str | Path) -> list[Example]:
    """The examples of a prepared split, in its order.

    Raises:
        DataError: the file is not there.
    """
    rows = read_table(path).to_pylist()
    return [_example(row) for row in rows]


def _example(row: Mapping[str, Any]) -> Example:
    between = row.get("joiner", joiner(row["prompt"], row["target"]))
    return Example(**{**row, "item": json.loads(row["item"]), "joiner": between})


def read_table(path: str | Path) -> Any:
    """A table that the stage prepare wrote.

    Raises:
        DataError: the file is not there.
    """
    from pyarrow import parquet

    if not Path(path).exists():
        raise DataError(f"{path}: not there; run the stage prepare first (dvc repro prepare)")
    return parquet.read_table(path)


def write_table(path: str | Path, rows: Sequence[Mapping[str, Any]], schema: Any) -> None:
    """Write rows as Parquet with the columns of the schema."""
    import pyarrow as pa
    from pyarrow import parquet

    with replaced(path) as part:
        parquet.write_table(pa.Table.from_pylist(list(rows), schema), part)


def collate_prompts(examples: Sequence[Example], pad_id: int) -> tuple[Tensor, Tensor]:
    """A batch of prompts.

    Returns:
        prompt_ids (B, P) int64, left-padded, and prompt_mask (B, P) bool, True = a prompt token.
    """
    import torch

    length = max(len(e.prompt_ids) for e in examples)
    ids = torch.full((len(examples), length), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(examples), length), dtype=torch.bool)
    for row, example in enumerate(examples):
        start = length - len(example.prompt_ids)
        ids[row, start:] = torch.tensor(example.prompt_ids)
        mask[row, start:] = True
    return ids, mask


def collate_sft(examples: Sequence[Example], pad_id: int) -> dict[str, Tensor]:
    """A batch of prompts with their targets.

    Returns:
        ``input_ids``, ``attention_mask`` (1 = a real token) and ``labels``, all (B, T) int64: the
        prompts left-padded, then the targets right-padded; labels are -100 but on the targets.
    """
    import torch

    prompts, prompt_mask = collate_prompts(examples, pad_id)
    length = max(len(e.target_ids) for e in examples)
    targets = torch.full((len(examples), length), pad_id, dtype=torch.int64)
    labels = torch.full((len(examples), length), IGNORED, dtype=torch.int64)
    for row, example in enumerate(examples):
        tokens = torch.tensor(example.target_ids, dtype=torch.int64)
        targets[row, : len(tokens)] = labels[row, : len(tokens)] = tokens
    mask = torch.cat([prompt_mask, labels != IGNORED], dim=1)
    return {
        "input_ids": torch.cat([prompts, targets], dim=1),
        "attention_mask": mask.long(),
        "labels": torch.cat([torch.full_like(prompts, IGNORED), labels], dim=1),
    }
