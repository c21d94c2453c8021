"""What DVC's cache still has of a stage's training seeds when their number changes.

DVC empties a stage's outs before it runs. Where nothing but the number of seeds is new, its cache
still has the files of the earlier ones, under the hashes in dvc.lock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mht.core.seeds import own_files
from mht.tracking.content.inputs import COUNT, StageInputs, seed_md5
from mht.tracking.content.pipeline import look_up

Files = dict[str, str]  # relative path to md5


def kept_outs(inputs: StageInputs, seed: int) -> dict[str, dict[str, Path]] | None:
    """Where a seed's files of each out lie in DVC's cache.

    Returns:
        Out to path below the seed's place to file; the path of an out that is a file is "". None
        where the seed has to be done: there was none, or something that decides it is new.
    """
    stage, first = inputs.stage, inputs.seeds[0]
    was = stage.settings.get(COUNT)
    if not stage.recorded or was is None or was == len(inputs.seeds):
        return None
    if not first <= seed < first + was or not _same_settings(inputs):
        return None
    cache = Cache()
    if not _same_deps(inputs, cache, seed):
        return None
    found: dict[str, dict[str, Path]] = {}
    for out, md5 in stage.recorded.items():
        files = cache.files(md5)
        own = own_files(files, inputs.seeds, seed) if files is not None else None
        if not md5.endswith(".dir"):
            own = {"": md5} if seed == first else {}
        if own is None or (md5.endswith(".dir") and not own):
            return None
        found[out] = {path: cache.place(of) for path, of in own.items()}
    places = [place for own in found.values() for place in own.values()]
    return found if all(place.is_file() for place in places) else None


def _same_settings(inputs: StageInputs) -> bool:
    stage, params = inputs.stage, inputs.pipeline.params
    others = {key: value for key, value in stage.settings.items() if key != COUNT}
    return set(stage.settings) == set(stage.params) and all(
        look_up(params, key) == value for key, value in others.items()
    )


def _same_deps(inputs: StageInputs, cache: Cache, seed: int) -> bool:
    now, before = inputs.read_by(seed), inputs.stage.read
    return all(
        _part(cache, before.get(path, ""), inputs, seed) == md5
        if path in inputs.models
        else before.get(path) == md5
        for path, md5 in now.items()
    )


def _part(cache: Cache, md5: str, inputs: StageInputs, seed: int) -> str | None:
    """The hash of a seed's part of a folder of models as it was."""
    files = cache.files(md5)
    return None if files is None else seed_md5(files, inputs.seeds, seed)


class Cache:
    """DVC's cache of files by their md5."""

    def __init__(self) -> None:
        from dvc.repo import Repo

        with Repo() as repo:
            self._odb = repo.cache.local

    def place(self, md5: str) -> Path:
        """Where a file of that hash lies, if it is there."""
        return Path(self._odb.oid_to_path(md5))

    def files(self, md5: str) -> Files | None:
        """The files of a folder's hash; None where the cache does not have it."""
        place = self.place(md5) if md5.endswith(".dir") else None
        if place is None or not place.is_file():
            return None
        listing: list[Mapping[str, str]] = json.loads(place.read_text(encoding="utf-8"))
        return {entry["relpath"]: entry["md5"] for entry in listing}
