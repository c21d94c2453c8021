"""Sentence embeddings: what the rewards that compare meanings share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mht.core.errors import MissingPackage
from mht.core.model_files.checks import check_sentence_encoder
from mht.data.text.special import broken_up
from mht.data.text.truncation import cut_note, ending, token_counts, token_limit, valid_unicode
from mht.rewards.models.shared import load


def embed(
    texts: Sequence[str],
    model: str,
    device: str,
    batch_size: int,
    *,
    needed_by: str,
    prompts: Sequence[str] = (),
    warn: Callable[[str], None] | None = None,
) -> Any:
    """(B + P, width) float32 unit vectors on the CPU; identical texts are encoded once.

    Args:
        texts: B texts; of those that are too long for the model the beginning is read.
        model: folder or hub name of a sentence-transformers model.
        device: "auto" or a torch device.
        batch_size: texts per forward pass.
        needed_by: the reward's type, for the error.
        prompts: P more texts; of those that are too long the end is read.
        warn: gets a message where a text is too long.

    Raises:
        MissingPackage: sentence-transformers is not installed.
        ModelError: the model can't be had.
    """
    try:
        import sentence_transformers  # noqa: F401
    except ImportError:
        raise MissingPackage("sentence-transformers", needed_by) from None
    encoder = load(model, device, "sentence encoder", _encoder)
    given = map(valid_unicode, (*texts, *prompts))
    valid = [broken_up(text, encoder.tokenizer) for text in given]
    limit = _limit(encoder)
    if limit is not None:
        if warn is not None and max(token_counts(valid, encoder.tokenizer), default=0) > limit:
            warn(cut_note(limit))
        valid[len(texts) :] = [ending(t, encoder.tokenizer, limit) for t in valid[len(texts) :]]
    unique = sorted(set(valid))
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
    if (limit := _limit(encoder)) is not None:
        encoder.max_seq_length = limit
    return encoder


def _limit(encoder: Any) -> int | None:
    """The most tokens that the encoder's transformer takes; None where it has none."""
    transformer = getattr(encoder[0], "auto_model", None)
    return None if transformer is None else token_limit(transformer, encoder.tokenizer)
