"""Training seeds: where the files of each lie.

Those of the first seed lie on top of an output, those of a further one in ``seeds/<seed>`` below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

FOLDER = "seeds"


def place(folder: str | Path, seeds: Sequence[int], seed: int) -> Path:
    """Where a seed's files of an output lie.

    >>> place("models/hybrid", range(3, 6), 4).as_posix()
    'models/hybrid/seeds/4'
    """
    return Path(folder) if seed == seeds[0] else Path(folder, FOLDER, str(seed))


def own_files(files: Mapping[str, T], seeds: Sequence[int], seed: int) -> dict[str, T]:
    """The entries of one seed, by their paths below its place.

    Args:
        files: path below the output to anything.
        seeds: all of them; the first one's files lie on top.
        seed: whose entries to give.

    >>> own_files({"a": 1, "seeds/4/a": 2, "seeds/5/a": 3}, range(3, 6), 4)
    {'a': 2}
    >>> own_files({"a": 1, "seeds/4/a": 2}, range(3, 6), 3)
    {'a': 1}
    """
    if seed == seeds[0]:
        return {path: own for path, own in files.items() if not path.startswith(f"{FOLDER}/")}
    above = f"{FOLDER}/{seed}/"
    return {path.removeprefix(above): own for path, own in files.items() if path.startswith(above)}
