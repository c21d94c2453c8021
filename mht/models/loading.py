"""Causal language models and tokenizers by folder or hub name, with errors a person can act on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mht.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def resolve_device(name: str = "auto") -> torch.device:
    """The torch device for a name; "auto" is the first GPU if there is one.

    Raises:
        ModelError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        problem = f"{name!r} can't be used here ({reason})"
        raise ModelError(f"base.device: {problem}; try 'auto'") from None
    return device


def load_causal_lm(
    name: str | Path,
    *,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A causal language model in evaluation mode (dropout off).

    Args:
        name: a folder or a hub name.
        dtype: of the weights, such as "float32".
        device: where to put it.
        revision: of a hub model.
        trust_remote_code: run code that comes with the model.

    Raises:
        ModelError: it is no model, or it can't be reached.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(name), dtype=getattr(torch, dtype), **options
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise _not_a_model(name, error) from None
    return model.to(device).eval()


def load_tokenizer(
    name: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a model.

    Raises:
        ModelError: there is none, or it can't be reached.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(name), revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise _not_a_model(name, error) from None


def _not_a_model(name: str | Path, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(name).is_dir():
        what = "the folder holds no causal language model that can be loaded"
    else:
        what = "no such folder, and no such model could be had from the hub"
    return ModelError(f"{name}: {what} ({reason})")
