"""Scores of model-backed rewards on the disk, so that no batch is scored twice.

A whole batch is kept, not a text: the last bits of a model's output depend on what a text is
batched with. A cache must not change a score by a single bit. The key has everything else that
decides a score: the type and its options, the content of its models, its texts, code, packages and
device.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import sqlite3
import struct
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from mht.core.project import repo_root
from mht.data.text.sample import Sample
from mht.rewards.node import Node

T = TypeVar("T")

PACKAGES = (
    "bert-score",
    "detoxify",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "transformers",
)
CHECK = 8  # bytes of the checksum before the numbers
WAIT_S = 30.0  # for another process that writes


def scores(reward: Node, samples: Sequence[Sample]) -> list[float]:
    """What ``reward.score(samples)`` gives, from the disk where this batch is there.

    A file that can't be used costs a warning and the time to score, never a score.
    """
    key = key_of(reward, samples)
    known = _with_file(lambda db: _look_up(db, key, len(samples)))
    if known is not None:
        return known
    values = reward.score(samples)
    if _storable(values, len(samples)):
        _with_file(lambda db: _store(db, key, values))
    return values


def key_of(reward: Node, samples: Sequence[Sample]) -> bytes:
    """32 bytes that stand for all that decides the batch's scores."""
    cls = type(reward)
    options = reward.model_dump(mode="json", include=set(cls.own_options()) - {"device"})
    content = [
        f"{cls.__module__}.{cls.__qualname__}",
        _by_content(options),
        [content_of(name) for name in reward.models()],
        _code(inspect.getsourcefile(cls) or ""),
        _packages(),
        _computing(getattr(reward, "device", "cpu")),
        [reward.reads(sample) for sample in samples],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


def _by_content(value: Any) -> Any:
    """Options with the content of every file and folder that they name in place of its name."""
    if isinstance(value, dict):
        return {key: _by_content(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_by_content(inner) for inner in value]
    return {"content": content_of(value)} if isinstance(value, str) and _exists(value) else value


def _exists(name: str) -> bool:
    try:
        return bool(name) and Path(name).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long for a path, NUL, no such user
        return False


def content_of(name: str) -> str:
    """The sha256 of a file, or of a folder's or a hub model's files and their names.

    Raises:
        ModelError: there is no such model.
    """
    from mht.rewards.models.shared import find_folder

    place = Path(name).expanduser()
    if not _exists(name):
        place = Path(find_folder(name, "model"))
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    parts = [f"{file.relative_to(place)} {_sha256(*_stat(file))}" for file in files]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _stat(file: Path) -> tuple[str, int, int]:
    found = file.stat()
    return str(file), found.st_mtime_ns, found.st_size


@lru_cache(maxsize=4096)
def _sha256(path: str, mtime_ns: int, size: int) -> str:
    """A file's sha256; read again only where its time or size has changed."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache
def _code(source: str) -> str:
    """The rewards' own code, that of the texts they read, and that of the type."""
    here = Path(__file__).parent
    shared = [here.parent / "data/text/truncation.py", here.parent / "data/text/sample.py"]
    files = [*sorted(here.rglob("*.py")), *shared]
    texts = [file.read_bytes() for file in (*files, Path(source)) if file.is_file()]
    return hashlib.sha256(b"\n".join(texts)).hexdigest()


@lru_cache
def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _computing(device: str) -> list[Any]:
    """Where it is computed: kernels and their number of threads may change the last bits."""
    import torch

    from mht.rewards.models.shared import pick_device

    place = pick_device(device)
    if place.startswith("cuda"):
        return [place, torch.cuda.get_device_name(place)]
    return [place, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]


def _storable(values: Any, count: int) -> bool:
    """Whether these are scores; what else a broken type gives is for its caller to refuse."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) is float and math.isfinite(value) for value in values)
    )


def _look_up(db: sqlite3.Connection, key: bytes, count: int) -> list[float] | None:
    row = db.execute("SELECT numbers FROM scores WHERE key = ?", (key,)).fetchone()
    if row is None or not isinstance(row[0], bytes):
        return None
    check, packed = row[0][:CHECK], row[0][CHECK:]
    if check != _check(key, packed) or len(packed) != 8 * count:
        return None
    return list(struct.unpack(f"<{count}d", packed))


def _store(db: sqlite3.Connection, key: bytes, values: Sequence[float]) -> None:
    packed = struct.pack(f"<{len(values)}d", *values)
    db.execute("INSERT OR REPLACE INTO scores VALUES (?, ?)", (key, _check(key, packed) + packed))


def _check(key: bytes, packed: bytes) -> bytes:
    return hashlib.sha256(key + packed).digest()[:CHECK]


def _with_file(work: Callable[[sqlite3.Connection], T]) -> T | None:
    """What the work on the cache gives, or None where the file can't be used.

    A connection of its own each time: none is carried into another process. A damaged file is set
    aside and a new one begun.
    """
    file = repo_root() / ".mht" / "rewards" / "scores.sqlite"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            seen = _inode(file)
            try:
                with closing(sqlite3.connect(file, timeout=WAIT_S)) as db, db:
                    db.execute(
                        "CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, numbers BLOB)"
                    )
                    return work(db)
            except sqlite3.OperationalError:  # locked for long, read-only, a full disk
                raise
            except sqlite3.DatabaseError as error:
                _set_aside(file, seen, error)
    except (sqlite3.Error, OSError) as error:
        warnings.warn(f"the cache {file} is not used: {error}", stacklevel=3)
    return None


def _inode(file: Path) -> int | None:
    return file.stat().st_ino if file.exists() else None


def _set_aside(file: Path, seen: int | None, error: Exception) -> None:
    """Rename a damaged file, unless another process has done so and begun a new one."""
    if _inode(file) != seen:
        return
    name = f"scores.damaged-{time.time_ns()}.sqlite"
    for part in (f"{file}-journal", file):  # an old journal would be played into the new file
        with suppress(FileNotFoundError):
            os.replace(part, file.with_name(name + ("-journal" if part != file else "")))
    warnings.warn(f"the cache {file} was damaged ({error}): set aside as {name}", stacklevel=4)
