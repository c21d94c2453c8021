"""The passages of a corpus that are nearest to a text, by the cosine of sentence embeddings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from mht.core.errors import DataError, first_line
from mht.rewards.cache import content_of
from mht.rewards.models.sentence_encoder import embed
from mht.rewards.models.shared import find_folder
from mht.rewards.text.corpus import Passage, digest

BLOCK = 256  # texts at once: their cosines with a million passages take 1 GB


class Found(NamedTuple):
    """A retrieved passage.

    Attributes:
        passage: its text and place.
        similarity: the cosine of its embedding and the text's, in [-1, 1].
    """

    passage: Passage
    similarity: float


class Retriever:
    """Embeds a corpus once per process, and finds in it.

    Args:
        found: the passages; of equal ones the first is kept.
        model: folder or hub name of a sentence-transformers model.
        device: "auto" or a torch device.
        batch_size: texts per forward pass.
        keep_in: a folder for the embeddings, which outlive the process there; None keeps none.
    """

    def __init__(
        self,
        found: Sequence[Passage],
        model: str,
        device: str,
        batch_size: int,
        keep_in: str | None = None,
    ):
        first: dict[str, Passage] = {}
        for passage in found:
            first.setdefault(passage.text, passage)
        self.passages = tuple(first.values())
        self.model, self.device, self.batch_size, self.keep_in = model, device, batch_size, keep_in
        self.digest = digest(self.passages)

    def nearest(self, texts: Sequence[str], count: int) -> list[list[Found]]:
        """For each text the ``count`` most similar passages, the most similar one first."""
        if not texts:
            return []
        rows = self._rows()
        wanted = _embed(texts, self.model, self.device, self.batch_size)
        made = []
        for start in range(0, len(texts), BLOCK):
            best = (wanted[start : start + BLOCK] @ rows.T).topk(min(count, len(rows)))
            for values, places in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                pairs = zip(places, values, strict=True)
                made.append([Found(self.passages[i], value) for i, value in pairs])
        return made

    def _rows(self) -> Any:
        """(passages, D) float32, each of length 1."""
        texts = tuple(passage.text for passage in self.passages)
        folder = find_folder(self.model, "sentence encoder")
        return _embedded(folder, self.device, texts, self.batch_size, self.digest, self.keep_in)


@lru_cache(maxsize=8)
def _embedded(
    folder: str,
    device: str,
    texts: tuple[str, ...],
    batch_size: int,
    name: str,
    keep_in: str | None,
) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    if keep_in is None:
        return _embed(texts, folder, device, batch_size)
    file = Path(keep_in) / f"{content_of(folder)[:16]}-{name[:32]}.safetensors"
    if file.is_file():
        try:
            return load_file(file)["rows"]
        except (SafetensorError, KeyError) as error:
            raise DataError(f"{file}: is damaged ({first_line(error)}): delete it") from None
    rows = _embed(texts, folder, device, batch_size)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")  # several processes may write it at once
    save_file({"rows": rows.contiguous()}, partial)
    partial.replace(file)
    return rows


def _embed(texts: Sequence[str], model: str, device: str, batch_size: int) -> Any:
    return embed(texts, model, device, batch_size, needed_by="retrieval from a corpus")
