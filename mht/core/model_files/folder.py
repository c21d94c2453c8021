"""Model folders that others made: any failure to load one becomes one line of text.

Loaders of transformers, tokenizers, safetensors and torch raise any kind of error for a wrong
value. So the guard here catches everything, and belongs around calls of such loaders alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from mht.core.errors import ModelError, UserError

INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
OBJECTS = (  # JSON files of a model folder that hold an object
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    *INDICES,
)
MADE_BY = "mht_model"  # in config.json: the settings of a kind of model that is not transformers'
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers")
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
    if isinstance(error, UnpicklingError):
        return "its pickled weights are damaged or hold more than tensors; save it as safetensors"
    if "ignore_mismatched_sizes" in str(error):
        return "its weights have other shapes than its config says"
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
        ValueError: a JSON file holds no object, an index names missing files, or the config has
            more layers than there are weights.
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
    weights = sum(len(stored_dtypes(file)) for file in folder.glob("*.safetensors"))
    if most > weights:
        raise ValueError(f"config.json states {most:.4g} layers, and there are {weights} weights")


def made_by(folder: str | Path) -> Any:
    """The settings of the kind of model that the folder holds; None for one of transformers'."""
    return _object(Path(folder), "config.json").get(MADE_BY)


def stored_config(folder: str | Path, *, trust_remote_code: bool = False) -> Any:
    """A model folder's config as transformers has it."""
    from transformers import AutoConfig, PretrainedConfig

    if made_by(folder) is not None:
        return PretrainedConfig.from_pretrained(folder)
    return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)


def stored_dtypes(file: Path) -> dict[str, str]:
    """The dtype of each tensor in a safetensors file, such as "F32"."""
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
