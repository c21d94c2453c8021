"""Splits by a hash of the content: a text is always in the same split, whatever else there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

TRAIN, VALIDATION, TEST, REWARD_MODEL = "train", "validation", "test", "reward_model"


def unit_hash(key: str) -> float:
    """A number in [0, 1) from the first 52 bits of a hex key."""
    return int(key[:13], 16) / 16**13


def assign(keys: Iterable[str], shares: Mapping[str, float]) -> dict[str, str]:
    """The split of each key.

    The interval [0, 1) is laid out in the order of ``shares`` with ``train`` as the rest. Without
    the last share, the ones before it stay as they are. Where few keys leave a split empty, it gets
    the largest split's first key by hash, as long as there is one to spare.

    Args:
        keys: hex sha256 of what must stay together; duplicates are fine.
        shares: of every split but train; those of 0 stay empty.

    Returns:
        key -> split.

    >>> sorted(assign(["0" * 64, "f" * 64, "8" * 64], {"test": 0.1, "validation": 0.1}).values())
    ['test', 'train', 'validation']
    """
    splits = {key: place(key, shares) for key in sorted(set(keys))}
    for name in (TRAIN, *(name for name, share in shares.items() if share)):
        counts = Counter(splits.values())
        if counts[name] or not counts:
            continue
        largest = max(sorted(counts), key=lambda split: counts[split])
        if counts[largest] > 1:
            splits[min(key for key, split in splits.items() if split == largest)] = name
    return splits


def place(key: str, shares: Mapping[str, float]) -> str:
    """The split in whose part of [0, 1) the key's hash lies."""
    position, edge = unit_hash(key), 0.0
    for name, share in shares.items():
        edge += share
        if position < edge:
            return name
    return TRAIN
