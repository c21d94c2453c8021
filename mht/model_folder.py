"""Model folders that others made: any failure to load one becomes one line of text.

Loaders of transformers, tokenizers, safetensors and torch raise whatever a wrong value leads to,
so the guard here catches everything, and belongs around calls of such loaders alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mht.errors import ModelError, UserError

INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
OBJECTS = (  # JSON files of a model folder that hold an object
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    *INDICES,
)
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers")
TEXT = "A text, 12 of 3.5: na\u00efve \u6f22\u5b57.\n"  # which any tokenizer should take
MANY_LAYERS = 500  # of a model that states more than it has weights
CLEAR = (OSError, ValueError, RuntimeError, ImportError)  # their messages need no type before them


@contextmanager
def reading(problem: str, advice: str = "") -> Iterator[None]:
    """Around a loader's call: whatever it raises becomes a `ModelError`.

    Args:
        problem: the beginning of the line, such as "model.name: can't load 'x'".
        advice: its end, what to do.

    Raises:
        ModelError: the problem with the loader's reason, in one line.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the libraries' own code, on somebody's folder
        raise ModelError(_line(problem, error, advice)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # Rust code that gave up: tokenizers
            raise
        raise ModelError(_line(problem, error, advice)) from error


def _line(problem: str, error: BaseException, advice: str) -> str:
    return f"{problem} ({reason_of(error)})" + (f": {advice}" if advice else "")


def reason_of(error: BaseException) -> str:
    """One line that says what went wrong.

    >>> reason_of(KeyError("size")), reason_of(TypeError())
    ("KeyError: 'size'", 'TypeError')
    """
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])[:300]
    if text and isinstance(error, CLEAR):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# -- before loading, within `reading` ----------------------------------------------------------


def check_files(folder: str | Path) -> None:
    """Refuse what a loader would not understand, or would need very long for.

    Args:
        folder: of a model.

    Raises:
        ValueError: a JSON file holds no object, an index names files that are not in the folder, or
            the config has more layers than there are weights.
    """
    found = {name: _object(Path(folder), name) for name in OBJECTS}
    for name in INDICES:
        _check_index(Path(folder) / name, found[name])
    _check_layers(Path(folder), found["config.json"])


def _object(folder: Path, name: str) -> Mapping[str, Any]:
    """A JSON file's object; empty where there is no such file."""
    file = folder / name
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} can't be read as JSON: {reason_of(error)}") from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{name} holds {json.dumps(found)[:60]}, not a JSON object")
    return found


def _check_index(file: Path, index: Mapping[str, Any]) -> None:
    if not file.exists():
        return
    places = index.get("weight_map")
    if not isinstance(places, Mapping) or not all(isinstance(f, str) for f in places.values()):
        raise ValueError(f"{file.name} has no weight_map of names to files")
    for name in sorted(set(places.values())):
        if Path(name).name != name or not (file.parent / name).is_file():
            raise ValueError(f"{file.name} names {name[:200]!r}, which is no file of the folder")


def _check_layers(folder: Path, config: Mapping[str, Any]) -> None:
    """A loader builds all layers that the config states before it looks at the weights."""
    inner = config.get("text_config")
    stated = [c.get(key) for c in (config, inner) if isinstance(c, Mapping) for key in LAYERS]
    most = max((n for n in stated if isinstance(n, int | float)), default=0)
    if most <= MANY_LAYERS:
        return
    weights = sum(len(_stored_dtypes(file)) for file in folder.glob("*.safetensors"))
    if most > weights:
        raise ValueError(f"config.json states {most:.4g} layers, and there are {weights} weights")


def _stored_dtypes(file: Path) -> dict[str, str]:
    """The dtype of each tensor in a safetensors file, such as "F32"."""
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118


# -- after loading, within `reading` -----------------------------------------------------------


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


def _check_dtypes(model: Any, folder: Path) -> None:
    """A loader turns whole numbers, truth values too, into weights without a word."""
    names = {name for name, weight in model.named_parameters() if weight.is_floating_point()}
    for file in folder.glob("*.safetensors"):
        for name, dtype in _stored_dtypes(file).items():
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
    if model is None:
        return
    named = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    largest = max([0, *ids, *(i for i in named if i is not None)])
    rows = _rows(model)
    if rows is not None and largest >= rows:
        raise ValueError(f"its tokenizer has a token {largest}, and its model {rows} tokens")
    for config in (model.config, getattr(model, "generation_config", None)):
        _check_ends(config)


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
