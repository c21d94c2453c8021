"""Models behind rewards: found, loaded once per (name, device), shared, run in whole batches."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from mht.core.errors import ModelError, first_line
from mht.core.model_files.checks import check_runs, check_tokenizer, check_whole
from mht.core.model_files.folder import check_files, reading

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


def find_folder(name: str, what: str) -> str:
    """The local folder of a model: ``name`` itself, or the hub's files in the local cache.

    Args:
        name: a folder, or a hub name such as "gpt2", or "gpt2@" and a revision. A revision is a
            branch, tag, commit, or a pull request such as refs/pr/1 with converted weights.
        what: what kind of model is needed, for the errors.

    Raises:
        ModelError: neither; the line says what to set.
    """
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise ModelError(f"the folder {name!r} is no {what}: it has no config.json")
        return str(Path(name).resolve())
    first = Path(name).parts[:1]
    is_path = name.startswith((".", "/", "~")) or ("/" in name and Path(*first).is_dir())
    if is_path or not HUB_NAME.fullmatch(name):
        raise ModelError(
            f"no such folder {name!r}: make it first, or set the model to the folder or the hub "
            f"name of a {what}"
        )
    return _from_hub(name, what)


def _from_hub(name: str, what: str) -> str:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, _, version = name.partition("@")
    revision = version or None
    try:
        folder = snapshot_download(repository, revision=revision, local_files_only=True)
        if has_weights(folder):
            return folder
    except LocalEntryNotFoundError:
        pass  # not in the cache yet
    refusals: Any = (*HfHubHTTPError.__bases__, OSError, ValueError)  # bases: the HTTP client's
    try:
        # fails at once without a network; files retry long
        HfApi().model_info(repository, revision=revision, timeout=10)
        folder = snapshot_download(repository, revision=revision, allow_patterns=FILES)
    except refusals as error:
        command = f"hf download {repository}" + (f" --revision {version}" if version else "")
        raise ModelError(
            f"no folder {name!r} here, and the hub gives no such model ({first_line(error)}): set "
            f"the folder of a {what}, or run `{command}` with a network"
        ) from error
    if not has_weights(folder):
        raise ModelError(
            f"the hub has no safetensors of {name!r}: name a revision that has them, such as "
            f"{repository}@refs/pr/1, or set it to the folder of a {what}"
        )
    return folder


def has_weights(folder: str) -> bool:
    """Whether a folder has weights that load without running code."""
    return any(Path(folder).rglob("*.safetensors"))


def pick_device(device: str) -> str:
    """The torch device for "auto" (a GPU if there is one), or the named one.

    Raises:
        ModelError: this machine has no such device.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"no device {device!r} here ({first_line(error)}): set auto") from error
    return device


def load(name: str, device: str, what: str, loader: Callable[..., Any], *options: Any) -> Any:
    """What ``loader(folder, device, *options)`` makes, once per model and device, then shared.

    A folder whose files have changed since is loaded again. Loading draws no random number that
    training would notice, so a resumed run, which loads at another moment, stays the same.

    Args:
        name: a folder or hub name.
        device: "auto" or a torch device.
        what: the kind of model, for the errors.
        loader: called with the folder, the device and the options.
        *options: hashable; part of what tells one model from another.

    Raises:
        ModelError: it can't be had, or is not such a model.
    """
    folder = find_folder(name, what)
    return _load(folder, _stamp(folder), pick_device(device), name, what, loader, *options)


@lru_cache(maxsize=16)
def _load(
    folder: str, stamp: int, device: str, name: str, what: str, loader: Any, *options: Any
) -> Any:
    import torch

    problem = f"model {name!r} does not load as a {what}"
    advice = "set model to the folder or the hub name of one, saved as safetensors"
    with reading(problem, advice), torch.random.fork_rng(devices=[]), quiet():
        check_files(folder)
        return loader(folder, device, *options)


def _stamp(folder: str) -> int:
    files = [f for name in os.listdir(folder) if (f := Path(folder) / name).exists()]
    return hash(tuple(sorted((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in files)))


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and load reports: what matters of them is checked and raised."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def pretrained(auto: Any, folder: str, device: str) -> tuple[Any, Any]:
    """Tokenizer and model of a folder: safetensors only, no code of its own, eval mode.

    Raises:
        ValueError: weights of this kind of model are not in the folder (they would be random), or
            are not finite.
    """
    import torch
    from transformers import AutoTokenizer

    model, report = auto.from_pretrained(
        folder,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        dtype=torch.float32 if device == "cpu" else "auto",
        output_loading_info=True,
    )
    check_whole(model, report, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = model.to(device).eval()
    check_runs(model)
    check_tokenizer(tokenizer, model)
    return tokenizer, model


def padded_batches(
    tokenizer: Any, encoded: Mapping[str, Sequence[Any]], size: int, device: str
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Encoded texts in batches of similar length: their indices, and their (b, T) tensors.

    Padding is on the right, as decoders count positions from the first token. A tokenizer without
    a padding token makes batches of one.
    """
    import torch

    lengths = [len(ids) for ids in encoded["input_ids"]]
    for chosen in batches(lengths, size if tokenizer.pad_token is not None else 1):
        part = {key: [values[i] for i in chosen] for key, values in encoded.items()}
        if len(chosen) > 1:
            part = tokenizer.pad(part, padding_side="right")
        yield chosen, {key: torch.tensor(rows, device=device) for key, rows in part.items()}


def batches(lengths: Sequence[int], size: int, tokens: int = 8192) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first.

    Args:
        lengths: tokens of each item.
        size: items per batch, at most.
        tokens: items times their longest, at most (a longer item makes a batch of its own).
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        count = max(1, min(size, tokens // max(1, lengths[order[start]])))
        yield order[start : start + count]
        start += count
