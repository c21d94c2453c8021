"""The folder of a model: a local one, or a copy from the hub."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mht.core.component import did_you_mean
from mht.core.errors import ModelError, first_line
from mht.data.sources.base import asset_entry
from mht.data.sources.bundled import Bundled, sha256_of

WANTED = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors", "README.md"]


def locate(
    name: str, revision: str | None, path: str, bundled: dict[str, Bundled]
) -> tuple[Path, dict[str, Any]]:
    """The folder of a local or hub model, with its entry of ``assets.json``."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        own, sha256 = folder.resolve().name, sha256_of(folder)
        return folder, asset_entry(own, "a local folder", "yours to say", sha256=sha256)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"{path}: there is no folder {name!r}")
    hint = did_you_mean(name, bundled)
    choices = f"bundled: {', '.join(bundled)}{hint}"
    folder = _download(name, revision, path, choices)
    licence, sha256 = _licence(folder), sha256_of(folder)
    return folder, asset_entry(name, "hub model", licence, version=folder.name, sha256=sha256)


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
            f"{path}: the hub has no {name!r} for you ({choices}): {first_line(error)}"
        ) from None
    except (OSError, HTTPError) as error:
        raise ModelError(
            f"{path}: {name!r} is no folder here and not bundled ({choices}), and the hub can't "
            f"be reached: {first_line(error)}"
        ) from None
    print(f"  there after {time.monotonic() - start:.0f} s", flush=True)
    return folder


def _licence(folder: Path) -> str:
    from huggingface_hub import ModelCard

    card = folder / "README.md"
    stated = ModelCard.load(card).data.license if card.exists() else None
    return str(stated or "see the model's page")
