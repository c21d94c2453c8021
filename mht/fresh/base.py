"""The model folder that a training seed starts from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mht.config.fresh import FreshModel
from mht.core.seeds import place
from mht.fresh.make import redraw

if TYPE_CHECKING:
    from mht.config import Config

MODELS, OWN = Path("models"), Path(".mht/fresh")


def model_folder(name: str, config: Config, seed: int) -> Path:
    """Where a training seed has its model of that name.

    A base model is the same for all seeds. But a fresh one has other weights with each seed: those
    of a further seed are drawn here, since they follow from the seed alone.

    Args:
        name: "base", "sft" or a variant.
        config: of all seeds.
        seed: one of them.
    """
    folder = MODELS / name
    if name != "base":
        return place(folder, config.seeds, seed)
    kind = config.of_seed(seed).model.name
    if seed == config.seeds[0] or not isinstance(kind, FreshModel):
        return folder
    redraw(folder, kind, OWN / str(seed))
    return OWN / str(seed)
