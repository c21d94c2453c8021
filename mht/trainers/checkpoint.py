"""Checkpoints of a training run: written whole or not at all, read back only if whole.

A killed run goes on from its newest checkpoint and ends with the very bytes that the uninterrupted
one would have written (on a CPU). Tensors are safetensors, the rest is JSON: nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mht.errors import UserError
from mht.launched import is_main_process
from mht.trainers.state import State, capture, restore

if TYPE_CHECKING:
    from mht.trainers.history import History
    from mht.trainers.hybrid import HybridTrainer

TENSORS, PLAIN = "state.safetensors", "state.json"
KEEP = 2


class CheckpointError(UserError):
    """The folder holds the checkpoints of another run."""


class Checkpoints:
    """The newest states of one training run, in a folder of their own.

    Args:
        folder: for this run alone; made when the first checkpoint is written.
        identity: JSON-able data on which the outcome depends; the checkpoints of another identity
            are refused.
        every_s: seconds between two checkpoints; 0 writes one after every step.
        history: the run's figures so far, which belong to its state.
    """

    def __init__(
        self,
        folder: str | Path,
        identity: Mapping[str, Any] | None = None,
        *,
        every_s: float = 60.0,
        history: History | None = None,
    ):
        self.folder, self.every_s, self.history = Path(folder), every_s, history
        self.identity = json.loads(json.dumps(identity or {}))
        self._written = time.monotonic()
        self._lock = self._claim() if is_main_process() else None

    def _claim(self) -> Any:
        from filelock import FileLock, Timeout

        self.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{self.folder}.lock", timeout=0)
        try:
            return lock.acquire()
        except Timeout:
            raise CheckpointError(
                f"another process is making exactly this run (it holds {lock.lock_file}): wait "
                "for it, or stop it"
            ) from None

    def resume(self, trainer: HybridTrainer) -> int:
        """Restore the newest whole checkpoint.

        Returns:
            How many parts of the schedule it has behind it; 0 where there is no checkpoint.

        Raises:
            CheckpointError: the checkpoints are of a run with another identity, or the processes
                do not see the same ones.
        """
        done = self._restore_newest(trainer)
        if trainer.devices.largest(done) != done or trainer.devices.largest(-done) != -done:
            raise CheckpointError(
                f"the processes do not see the same checkpoints in {self.folder}: it has to be on "
                "a disk that all of them share"
            )
        return done

    def _restore_newest(self, trainer: HybridTrainer) -> int:
        for path in sorted(self._complete(), reverse=True):
            state = self._read(path)
            if state is None:
                if trainer.devices.is_main:
                    print(
                        f"the checkpoint {path} is damaged: going on from the one before it",
                        file=sys.stderr,
                        flush=True,
                    )
                continue
            self._check_identity(path, state.plain["identity"])
            restore(trainer, state)
            if self.history is not None:
                self.history.set_state(state.plain["history"])
            if trainer.devices.is_main:
                print(f"resumed after step {trainer.step}", flush=True)
            return int(state.plain["done"])
        return 0

    def offer(self, trainer: HybridTrainer, done: int) -> None:
        """Write a checkpoint if it is time for one; ``done`` parts of the schedule are behind."""
        if trainer.devices.on_main(lambda: time.monotonic() - self._written >= self.every_s):
            self.write(trainer, done)

    def write(self, trainer: HybridTrainer, done: int) -> None:
        """Write a checkpoint, then drop all but the newest two.

        With several processes all call this, and the main one writes.
        """
        from safetensors.torch import save

        devices = trainer.devices
        if not (devices.is_main or devices.shards):
            return
        state = capture(trainer)  # by all where each has a part of it
        if not devices.is_main:
            return
        data = save(state.tensors)
        state.plain |= {
            "done": done,
            "identity": self.identity,
            "history": self.history.get_state() if self.history else None,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        new = self.folder / f"{done:08d}"
        half = self.folder / f".{new.name}"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        _write(half / TENSORS, data)
        _write(half / PLAIN, json.dumps(state.plain).encode())
        shutil.rmtree(new, ignore_errors=True)  # a damaged one that was resumed from before
        half.rename(new)
        for old in sorted(self._complete())[:-KEEP]:
            shutil.rmtree(old)
        self._written = time.monotonic()
        if self.history is not None:
            self.history.publish()

    def clear(self) -> None:
        """The run has ended and its outputs are written: forget its checkpoints."""
        if self._lock is None:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.lock.release()
        Path(f"{self.folder}.lock").unlink(missing_ok=True)

    def _complete(self) -> list[Path]:
        return [p for p in self.folder.glob("[0-9]*") if p.is_dir()]

    def _read(self, path: Path) -> State | None:
        """A checkpoint, or None where it is damaged."""
        from safetensors.torch import load

        try:
            plain = json.loads((path / PLAIN).read_text(encoding="utf-8"))
            data = (path / TENSORS).read_bytes()
        except (OSError, ValueError):
            return None
        digest = plain.get("sha256") if isinstance(plain, dict) else None
        if hashlib.sha256(data).hexdigest() != digest:
            return None
        return State(load(data), plain)

    def _check_identity(self, path: Path, theirs: Mapping[str, Any]) -> None:
        different = [
            f"{key}: {theirs.get(key)!r} there, {self.identity.get(key)!r} here"
            for key in sorted({*theirs, *self.identity})
            if theirs.get(key) != self.identity.get(key)
        ]
        if different:
            raise CheckpointError(
                f"{path} is a checkpoint of another run ({'; '.join(different)}): give this run a "
                "folder of its own, or delete that one"
            )


def _write(path: Path, data: bytes) -> None:
    """The file is on the disk when this returns."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
