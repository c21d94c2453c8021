"""Models that others made, once loaded: what is not whole, not finite or can't run is refused.

The checks raise ValueError and belong into `mht.core.model_files.folder.reading`, which names the
folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mht.core.model_files.folder import stored_dtypes

TEXT = "A text, 12 of 3.5: na\u00efve \u6f22\u5b57.\n"  # which any tokenizer should take


def check_whole(model: Any, report: Mapping[str, Any], folder: str | Path) -> None:
    """Refuse a model that is not all that its folder holds, or has weights that are not finite.

    Args:
        model: as transformers loaded it.
        report: its loading info.
        folder: of the model; what is no folder here is not looked into.

    Raises:
        ValueError: weights are missing, layers were left out, or a weight is not finite or stored
            as whole numbers.
    """
    check_missing(report.get("missing_keys") or ())
    layers = {_any_layer(name) for name, _ in model.named_parameters()}
    left = [name for name in report.get("unexpected_keys") or () if _any_layer(name) in layers]
    if left:
        raise ValueError(f"its weights have more layers than its config says: {min(left)}")
    _check_dtypes(model, Path(folder))
    check_weights(model)
    for config in (model.config, getattr(model, "generation_config", None)):
        _check_ends(config)


def _check_dtypes(model: Any, folder: Path) -> None:
    """A loader turns whole numbers, truth values too, into weights without a word."""
    names = {name for name, weight in model.named_parameters() if weight.is_floating_point()}
    for file in folder.glob("*.safetensors"):
        for name, dtype in stored_dtypes(file).items():
            if name in names and not dtype.startswith(("F", "BF", "C")):
                raise ValueError(f"its weight {name} is stored as {dtype}, which has no fractions")


def _any_layer(name: str) -> str:
    """A weight's name with each number as #."""
    return re.sub(r"\d+", "#", name)


def check_missing(missing: Iterable[str]) -> None:
    """Refuse a model that lacks weights, by name in ``missing``: they would be random."""
    names = sorted(missing)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise ValueError(f"it has no weights for {', '.join(names[:3])}{more}")


def check_weights(model: Any) -> None:
    """Refuse a torch module's weights that are not finite; buffers may hold -inf, as masks do."""
    check_tensors(dict(model.named_parameters()))
    check_tensors({n: b.clamp(min=-1) for n, b in model.named_buffers() if _has_numbers(b)})


def check_tensors(tensors: Mapping[str, Any]) -> None:
    """The same of tensors by name, none of them with -inf."""
    for name, tensor in tensors.items():
        if _has_numbers(tensor) and not _is_finite(tensor):
            raise ValueError(f"its weight {name} has values that are nan or infinite")


def _has_numbers(tensor: Any) -> bool:
    return tensor.is_floating_point() and not tensor.is_meta and tensor.numel() > 0


def _is_finite(tensor: Any) -> bool:
    """Whether all values are finite; a finite sum, ten times as fast, shows that they are."""
    import torch

    values = tensor.detach()
    values = values.float() if values.element_size() < 4 else values
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())


def check_runs(model: Any) -> None:
    """Run a model on two tokens: what can't compute is found now, not in training.

    Args:
        model: a transformers model with logits.

    Raises:
        ValueError: it gives nan; any other error is its own.
    """
    import torch

    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    end = getattr(model.config, "eos_token_id", None)
    words = model.get_input_embeddings()
    if isinstance(end, int) and 0 <= end < len(words.weight):  # where BART's classifiers look
        ids[0, -1] = end
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    if bool(torch.isnan(logits).any()):
        raise ValueError(f"it gives nan for two tokens, in {logits.dtype}")


def check_tokenizer(tokenizer: Any, model: Any = None, *, closed: bool = False) -> None:
    """Refuse a tokenizer that can't read a text, or whose tokens the model does not have.

    Args:
        tokenizer: as loaded.
        model: as loaded; None looks at the tokenizer alone.
        closed: it may be one of whole words that knows no others.

    Raises:
        ValueError: a token is not in the model; any other error is the tokenizer's own.
    """
    try:
        ids = tokenizer(TEXT)["input_ids"]
    except Exception as error:  # tokenizers has no class for it
        if not closed or not str(error).startswith("WordLevel error: Missing [UNK]"):
            raise
        ids = []
    tokenizer.decode(ids)
    _check_template(tokenizer)
    if model is None:
        return
    named = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    largest = max([0, *ids, *(i for i in named if i is not None)])
    rows = _rows(model)
    if rows is not None and largest >= rows:
        raise ValueError(f"its tokenizer has a token {largest}, and its model {rows} tokens")


def _check_template(tokenizer: Any) -> None:
    """Its syntax alone: which conversations a chat template refuses depends on the data."""
    from jinja2 import TemplateSyntaxError

    if not isinstance(tokenizer.chat_template, str):
        return
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    except TemplateSyntaxError as error:
        line = f"line {error.lineno}: {error.message}"
        raise ValueError(f"its chat template is no Jinja template, {line}") from error
    except Exception:  # it refuses this conversation
        return


def _rows(model: Any) -> int | None:
    """How many tokens the model has; None where it has no table of them."""
    try:
        weight = getattr(model.get_input_embeddings(), "weight", None)
    except NotImplementedError:
        return None
    return None if weight is None else len(weight)


def _check_ends(config: Any) -> None:
    ends = getattr(config, "eos_token_id", None)
    for end in ends if isinstance(ends, list) else [ends]:
        if end is not None and (isinstance(end, bool) or not isinstance(end, int)):
            raise ValueError(
                f"its eos_token_id is {str(ends)[:60]}, not a token id or a list of them"
            )


def check_sentence_encoder(encoder: Any) -> None:
    """The same for a SentenceTransformer, which leaves what is missing random.

    Args:
        encoder: as loaded; models without transformers' weights have only their values checked.

    Raises:
        ValueError: weights are missing or not finite, or a text has no finite embedding.
    """
    import torch

    model: Any = getattr(encoder[0], "auto_model", None)
    if hasattr(model, "config"):
        _, report = type(model).from_pretrained(
            model.config.name_or_path, output_loading_info=True, local_files_only=True
        )
        check_missing(name for name in report["missing_keys"] if "pooler" not in name)
    check_weights(encoder)
    row = encoder.encode(["a text"], convert_to_tensor=True, show_progress_bar=False)
    if not bool(torch.isfinite(row).all()):
        raise ValueError("its embedding of a text is not finite")
