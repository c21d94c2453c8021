"""Causal language models and tokenizers by folder or hub name, with errors a person can act on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mht.config.fresh import FreshModel
from mht.core.component import build
from mht.core.errors import ModelError, first_line
from mht.core.model_files.checks import check_runs, check_tokenizer, check_weights, check_whole
from mht.core.model_files.folder import MADE_BY, check_files, made_by, reading, stored_config
from mht.models.language_model import WEIGHTS, LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
        problem = f"{name!r} can't be used here ({first_line(error)})"
        raise ModelError(f"base.device: {problem}; try 'auto'") from None
    return device


def load_causal_lm(
    name: str | Path,
    *,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """A causal language model in evaluation mode (dropout off).

    Args:
        name: a folder or a hub name.
        dtype: of the weights, such as "float32".
        device: where to put it.
        revision: of a hub model.
        trust_remote_code: run code that comes with the model.

    Raises:
        ModelError: it is no model, it can't be reached, it lacks weights, has some that are not
            finite, or does not compute.
    """
    from transformers import AutoModelForCausalLM

    problem = _not_a_model(name)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with reading(problem):
        check_files(name)
        if made_by(name) is not None:
            return _load_own(Path(name), getattr(torch, dtype)).to(device)
        model, report = AutoModelForCausalLM.from_pretrained(
            str(name), dtype=getattr(torch, dtype), output_loading_info=True, **options
        )
        check_whole(model, report, name)
        model = model.to(device).eval()
        check_runs(model)
    return model


def _load_own(folder: Path, dtype: torch.dtype) -> LanguageModel:
    """A model that a `FreshModel` of some package made."""
    from safetensors.torch import load_file

    config = stored_config(folder)
    kind = build(FreshModel, made_by(folder), path=MADE_BY, source=str(folder / "config.json"))
    with torch.random.fork_rng(devices=[]):
        model = kind.build(config)
    assert isinstance(model, LanguageModel)
    model.load_state_dict(load_file(folder / WEIGHTS))
    check_weights(model)
    model.name_or_path = str(folder)
    return model.to(dtype).eval()


def load_tokenizer(
    name: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a model.

    Raises:
        ModelError: there is none, or it can't be reached.
    """
    from transformers import AutoTokenizer

    problem = _not_a_model(name, "tokenizer")
    with reading(problem):
        check_files(name)
        tokenizer = AutoTokenizer.from_pretrained(
            str(name), revision=revision, trust_remote_code=trust_remote_code
        )
        check_tokenizer(tokenizer, closed=True)
    return tokenizer


def _not_a_model(name: str | Path, kind: str = "causal language model") -> str:
    if Path(name).is_dir():
        return f"{name}: the folder holds no {kind} that can be loaded"
    return f"{name}: no such folder, and no such model could be had from the hub"
