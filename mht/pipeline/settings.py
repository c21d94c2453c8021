"""The settings of each variant as files, which DVC watches in place of params.yaml.

DVC can't know that a row of ``baselines`` takes its settings from ``ppo``. So the first stage
writes what each row comes to, and a variant's stages depend on its file alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mht.core.outputs import replaced_folder
from mht.core.stable_files import write_json

if TYPE_CHECKING:
    from mht.config import Config

FOLDER = Path("settings")
LENGTHS = "data/response_tokens.json"  # what `prepare` reads: below, so that no row has its name


def write_settings(config: Config, folder: Path = FOLDER) -> None:
    """Write a file for each variant, and the longest response of them all."""
    with replaced_folder(folder) as new:
        for variant in config.variants.values():
            write_json(new / f"{variant.name}.json", variant.as_plain())
        lengths = [config.ppo.response_tokens]
        lengths += [row.response_tokens for row in config.baselines.values()]
        write_json(new / LENGTHS, {"response_tokens": max(lengths)})
