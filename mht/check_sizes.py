"""Sizes in the settings beside the rows that were prepared: what is most likely not meant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mht.config import Config, HybridConfig

PREPARED = Path("data/prepared")
SPLITS = ("train", "validation", "test")


def sizes(config: Config, folder: Path = PREPARED) -> Iterator[str]:
    """One ``path: message`` line for each size beyond the rows; none before `prepare` has run."""
    rows = {split: count for split in SPLITS if (count := _rows(folder / f"{split}.parquet"))}
    batches, looks = _batches(config), _looks(config)
    for path, size in batches.items():
        if "train" in rows and size > rows["train"]:
            yield f"{path}: {size} is more than the {rows['train']} training rows: some come twice"
    for path, (size, split) in looks.items():
        if split in rows and size > rows[split]:
            yield f"{path}: {size} is more than the {rows[split]} {split} rows: all are taken"


def _batches(config: Config) -> dict[str, int]:
    found = {"sft.batch_size": config.sft.batch_size} if config.sft.steps else {}
    for path, section in _loops(config).items():
        sft, ppo = section.steps
        found |= {f"{path}.sft_batch_size": section.sft_batch_size} if sft else {}
        found |= {f"{path}.batch_size": section.prompts_per_step} if ppo else {}
    return found


def _looks(config: Config) -> dict[str, tuple[int, str]]:
    found: dict[str, tuple[int, str]] = {}
    found["evaluate.prompts"] = (config.evaluate.prompts, config.evaluate.split)
    if config.sft.steps:
        found["sft.eval_examples"] = (config.sft.eval_examples, "validation")
    for path, section in _loops(config).items():
        if section.eval_every and sum(section.steps):
            found[f"{path}.eval_prompts"] = (section.eval_prompts, "validation")
    return found


def _loops(config: Config) -> dict[str, HybridConfig]:
    baselines = {f"baselines.{name}": section for name, section in config.baselines}
    return {"ppo": config.ppo, **baselines}


def _rows(file: Path) -> int | None:
    """How many rows a prepared split has, from the file's end alone."""
    if not file.is_file():
        return None
    from pyarrow import ArrowException, parquet

    try:
        return int(parquet.read_metadata(file).num_rows)
    except (ArrowException, OSError):  # half a file, which `prepare` will write anew
        return None
