"""Detoxify's own checkpoints, read by its package; no code of theirs runs.

Hanu & Unitary 2020, github.com/unitaryai/detoxify. The package would load them with pickle, and get
config and tokenizer from the hub. Here only tensors and plain values are read, from the disk.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mht.core.errors import MissingPackage, ModelError
from mht.core.model_files.checks import check_missing, check_runs, check_weights
from mht.core.model_files.folder import reading
from mht.rewards.models.sequence_classifier import Classifier
from mht.rewards.models.shared import load

ARCHITECTURE = {
    "model_type": r"[\w.-]+(/[\w.-]+)?",
    "model_name": r"\w+ForSequenceClassification",
    "tokenizer_name": r"\w+Tokenizer(Fast)?",
}
OWNERS = ("google-bert/", "FacebookAI/", "albert/", "")  # of the encoders, on the hub


def checkpoint_of(model: str) -> Path | None:
    """The checkpoint's file that a reward's ``model`` stands for; None where it stands for none.

    Args:
        model: a file that ends in .ckpt; a folder with one; or one of Detoxify's short names, whose
            file is in torch hub's cache.

    Raises:
        ModelError: there is no such file, or the folder has several.
    """
    path = Path(model).expanduser()
    if path.suffix == ".ckpt":
        if not path.is_file():
            raise ModelError(f"no such file {model!r}: put a checkpoint of Detoxify there")
        return path
    if path.is_dir():
        found = sorted(path.glob("*.ckpt"))
        if len(found) > 1:
            names = ", ".join(file.name for file in found[:5])
            raise ModelError(f"the folder {model!r} has several checkpoints ({names}): name one")
        return found[0] if found else None
    file = cached_file(model)
    return file if file is not None and file.is_file() else None


def cached_file(name: str) -> Path | None:
    """Where torch hub keeps a short name's checkpoint; None where Detoxify has no such name."""
    import torch

    try:
        from detoxify.detoxify import MODEL_URLS
    except ImportError:
        return None
    url = MODEL_URLS.get(name)
    return None if url is None else Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])


def detoxify_model(file: Path, device: str, also: Collection[str] = ()) -> DetoxifyModel:
    """The shared model of a checkpoint.

    Args:
        file: the checkpoint.
        device: "auto" or a torch device.
        also: hub names of models with the same config and tokenizer.

    Raises:
        MissingPackage: Detoxify is not installed.
        ModelError: the checkpoint can't be read, or its config and tokenizer are not there.
    """
    found = file.stat()
    with reading(f"{file} is no checkpoint of Detoxify"):
        base = _content(file)["config"]["arch"]["args"]["model_type"]
    folder = _folder(file, base, also)
    stamp = (found.st_mtime_ns, found.st_size)
    return load(folder, device, "Detoxify model", DetoxifyModel, str(file), stamp)


def _folder(file: Path, base: str, also: Collection[str]) -> str:
    """Where config and tokenizer are: beside the checkpoint, or in the hub's local cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if (file.parent / "config.json").is_file():
        return str(file.parent)
    owners = ("",) if "/" in base else OWNERS
    for name in (*(owner + base for owner in owners), *also):
        repository, _, revision = name.partition("@")
        try:
            folder = snapshot_download(repository, revision=revision or None, local_files_only=True)
        except (LocalEntryNotFoundError, ValueError):  # not there, or no name that the hub has
            continue
        if (Path(folder) / "config.json").is_file():
            return folder
    raise ModelError(
        f"{file} needs the config and tokenizer of {base}: put config.json and the tokenizer's "
        f"files beside it, or run `hf download {base} config.json tokenizer.json "
        "tokenizer_config.json` with a network"
    )


class DetoxifyModel(Classifier):
    """A checkpoint of Detoxify as a classifier of independent labels.

    Args:
        folder: of its config and tokenizer.
        device: a torch device.
        file: the checkpoint.
        stamp: tells one version of the checkpoint from another.
    """

    def __init__(self, folder: str, device: str, file: str, stamp: tuple[int, int]):
        try:
            from detoxify.detoxify import get_model_and_tokenizer
        except ImportError:
            raise MissingPackage("detoxify", "toxicity") from None
        content = _content(Path(file))
        weights, labels = content["state_dict"], content["config"]["dataset"]["args"]["classes"]
        arguments = _architecture(content["config"]["arch"]["args"], len(labels))
        model, tokenizer = get_model_and_tokenizer(
            **{**arguments, "model_type": folder}, state_dict=weights
        )
        check_missing(name for name, _ in model.named_parameters() if name not in weights)
        check_weights(model)
        model = model.float().to(device).eval()
        check_runs(model)
        self.take(tokenizer, model, device)
        self.labels, self.multi_label = list(labels), True


def _content(file: Path) -> Mapping[str, Any]:
    """A checkpoint's config and weights.

    Raises:
        ValueError: it holds more than tensors and plain values, or not what Detoxify writes.
    """
    import pickle

    import torch

    try:
        found = torch.load(
            file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
        )
    except pickle.UnpicklingError as error:
        raise ValueError(
            "it holds more than tensors and plain values, and code is not run: take one of "
            "Detoxify's releases"
        ) from error
    labels = found["config"]["dataset"]["args"]["classes"]
    if not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError("its config names no classes")
    _architecture(found["config"]["arch"]["args"], len(labels))
    return found


def _architecture(arguments: Mapping[str, Any], labels: int) -> dict[str, Any]:
    """What the package makes the model of; names of anything else in transformers are refused."""
    for key, pattern in ARCHITECTURE.items():
        if not re.fullmatch(pattern, str(arguments[key])):
            raise ValueError(f"its {key} is {arguments[key]!r}")
    if arguments["num_classes"] != labels:
        raise ValueError(f"it has {labels} classes, and num_classes {arguments['num_classes']!r}")
    return {key: arguments[key] for key in (*ARCHITECTURE, "num_classes")}
