"""Sentence embeddings: what the rewards that compare meanings share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mht.errors import MissingPackage
from mht.model_folder import check_sentence_encoder
from mht.rewards.models import load, valid_unicode


def embed(texts: Sequence[str], model: str, device: str, batch_size: int, *, needed_by: str) -> Any:
    """(B, width) float32 unit vectors on the CPU; identical texts are encoded once.

    Args:
        texts: B texts.
        model: folder or hub name of a sentence-transformers model.
        device: "auto" or a torch device.
        batch_size: texts per forward pass.
        needed_by: the reward's type, for the error.

    Raises:
        MissingPackage: sentence-transformers is not installed.
        ModelError: the model can't be had.
    """
    try:
        import sentence_transformers  # noqa: F401
    except ImportError:
        raise MissingPackage("sentence-transformers", needed_by) from None
    valid = [valid_unicode(text) for text in texts]
    unique = sorted(set(valid))
    encoder = load(model, device, "sentence encoder", _encoder)
    rows = encoder.encode(
        unique,
        batch_size=batch_size,
        normalize_embeddings=True,
        convert_to_tensor=True,
        show_progress_bar=False,
    )
    place = {text: i for i, text in enumerate(unique)}
    return rows.float().cpu()[[place[text] for text in valid]]


def _encoder(folder: str, device: str) -> Any:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(
        folder,
        device=device,
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs={"use_safetensors": True},
    )
    check_sentence_encoder(encoder)
    return encoder
