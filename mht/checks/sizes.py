"""Compares sizes in the settings with the number of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mht.config import Config
from mht.config.variants import loops_of

PREPARED = Path("data/prepared")
SPLITS = ("train", "validation", "test")


def sizes(config: Config, given: int | None = None, folder: Path = PREPARED) -> Iterator[str]:
    """One ``path: message`` line for each size above the number of rows.

    Args:
        config: the settings.
        given: rows of `data.source`, which the splits divide; None if not counted.
        folder: of the prepared splits, which are counted if ``given`` is None.
    """
    rows = _prepared(folder) if given is None else _shares(config, given)
    about = "" if given is None else "about "
    for path, size in _batches(config).items():
        if size > rows.get("train", size):
            yield (
                f"{path}: {size} is more than the {about}{rows['train']} training rows: "
                "some come twice"
            )
    for path, (size, split) in _looks(config).items():
        if size > rows.get(split, size):
            yield (
                f"{path}: {size} is more than the {about}{rows[split]} {split} rows: all are taken"
            )


def _prepared(folder: Path) -> dict[str, int]:
    counts = {split: _rows(folder / f"{split}.parquet") for split in SPLITS}
    return {split: count for split, count in counts.items() if count}


def _shares(config: Config, given: int) -> dict[str, int]:
    """About how many rows each split has at most; a hash of each text decides its split."""
    splits = config.data.splits
    judged = splits.reward_model if config.data.labels == config.data.source else 0.0
    shares = {"validation": splits.validation, "test": splits.test}
    shares["train"] = 1 - sum(shares.values()) - judged
    return {split: round(share * given) for split, share in shares.items()}


def _batches(config: Config) -> dict[str, int]:
    found = {"sft.batch_size": config.sft.batch_size} if config.sft.steps else {}
    for path, section in loops_of(config).items():
        sft, ppo = section.steps
        found |= {f"{path}.sft_batch_size": section.sft_batch_size} if sft else {}
        found |= {f"{path}.batch_size": section.prompts_per_step} if ppo else {}
    return found


def _looks(config: Config) -> dict[str, tuple[int, str]]:
    found: dict[str, tuple[int, str]] = {}
    found["evaluate.prompts"] = (config.evaluate.prompts, config.evaluate.split)
    if config.sft.steps:
        found["sft.eval_examples"] = (config.sft.eval_examples, "validation")
    for path, section in loops_of(config).items():
        if section.eval_every and sum(section.steps):
            found[f"{path}.eval_prompts"] = (section.eval_prompts, "validation")
    return found


def _rows(file: Path) -> int | None:
    """The number of rows of a prepared split, read from the end of its file."""
    if not file.is_file():
        return None
    from pyarrow import ArrowException, parquet

    try:
        return int(parquet.read_metadata(file).num_rows)
    except (ArrowException, OSError):  # half a file, which `prepare` will write anew
        return None
