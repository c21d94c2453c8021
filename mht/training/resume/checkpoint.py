"""Checkpoints of a training run: written whole or not at all, read back only if whole.

A killed run resumes from its newest checkpoint and ends with the bytes that the uninterrupted run
would have written (on a CPU). Tensors are safetensors, the rest is JSON: nothing is unpickled.
Every byte of a checkpoint is under a hash. If one is damaged, or does not fit the trainer, the one
before it is used. A checkpoint that does not fit leaves the trainer unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from mht.core.errors import UserError
from mht.core.model_files.folder import reason_of
from mht.core.outputs import disk_problem
from mht.core.processes.launched import is_main_process
from mht.devices.base import Devices
from mht.training.resume.state import State, Stateful, capture, restore

if TYPE_CHECKING:
    from mht.training.history import History

TENSORS, PLAIN = "state.safetensors", "state.json"
KEYS = {"done", "identity", "tensors"}  # beside the states, by their names
KEEP = 2
BEFORE = "going on from the one before it"


class CheckpointError(UserError):
    """The folder holds the checkpoints of another run."""


class _Unfit(Exception):
    """A state that the trainer can't take."""


class Trainer(Protocol):
    """What can be resumed.

    Attributes:
        devices: this process among those that train.
    """

    devices: Devices

    @property
    def states(self) -> Mapping[str, Stateful]:
        """All that changes while it trains, by name."""


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
        self._warned = False
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

    def resume(self, trainer: Trainer) -> int:
        """Restore the newest whole checkpoint.

        Returns:
            How many parts of the schedule it has behind it; 0 where there is no whole checkpoint.

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

    def _restore_newest(self, trainer: Trainer) -> int:
        paths = sorted(self._complete(), reverse=True)
        for path in paths:
            try:
                state = _read(path)
            except (OSError, ValueError) as error:
                _say(trainer, f"the checkpoint {path} is damaged: {BEFORE} ({error})")
                continue
            self._check_identity(path, state.plain["identity"])
            try:
                self._apply(trainer, state)
            except _Unfit as error:
                _say(trainer, f"the checkpoint {path} does not fit: {BEFORE} ({error})")
                continue
            return int(state.plain["done"])
        if paths:
            _say(trainer, f"no checkpoint in {self.folder} can be used: beginning at the start")
        return 0

    def _apply(self, trainer: Trainer, state: State) -> None:
        """Put a state into the trainer and its history; both stay as they are where it fails.

        Raises:
            _Unfit: it does not fit.
        """
        parts = self._parts(trainer)
        before = capture(parts).copied()
        try:
            restore(parts, state)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a reward of the user's own may raise anything
            restore(parts, before)
            raise _Unfit(reason_of(error)) from error

    def _parts(self, trainer: Trainer) -> dict[str, Stateful]:
        return {**trainer.states, **({"history": self.history} if self.history else {})}

    def offer(self, trainer: Trainer, done: int) -> None:
        """Write a checkpoint if it is time for one; ``done`` parts of the schedule are behind."""
        if trainer.devices.on_main(lambda: time.monotonic() - self._written >= self.every_s):
            self.write(trainer, done)

    def write(self, trainer: Trainer, done: int) -> None:
        """Write a checkpoint, then drop all but the newest two.

        With several processes all call this, and the main one writes. A disk that refuses is one
        warning: the training is worth more than its checkpoints, and the ones before stay.
        """
        from safetensors.torch import save

        devices = trainer.devices
        if not (devices.is_main or devices.shards):
            return
        state = capture(self._parts(trainer))  # by all where each has a part of it
        if not devices.is_main:
            return
        data = save(state.tensors)
        state.plain |= {
            "done": done,
            "identity": self.identity,
            "tensors": hashlib.sha256(data).hexdigest(),
        }
        self._written = time.monotonic()
        new = self.folder / f"{done:08d}"
        try:
            self._put(new, data, sealed(json.dumps(state.plain).encode()))
        except OSError as error:
            if not (problem := disk_problem(error)):
                raise
            self._warn(f"the checkpoint {new} can't be written ({problem})")
            return
        kept = [path for path in sorted(self._complete()) if path.name <= new.name][-KEEP:]
        for old in {*self._complete()} - {*kept}:  # older, or damaged and passed over
            shutil.rmtree(old)
        if self.history is not None:
            self.history.publish()

    def _put(self, new: Path, tensors: bytes, plain: bytes) -> None:
        half = self.folder / f".{new.name}"
        shutil.rmtree(half, ignore_errors=True)
        try:
            half.mkdir(parents=True)
            _write(half / TENSORS, tensors)
            _write(half / PLAIN, plain)
            shutil.rmtree(new, ignore_errors=True)  # a damaged one that was resumed from before
            half.rename(new)
            _sync(self.folder)
        finally:
            shutil.rmtree(half, ignore_errors=True)

    def _warn(self, problem: str) -> None:
        if not self._warned:
            self._warned = True
            text = "training goes on; if it is killed, it resumes from an earlier checkpoint"
            print(f"warning: {problem}: {text}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """The run has ended and its outputs are written: forget its checkpoints."""
        if self._lock is None:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.lock.release()
        Path(f"{self.folder}.lock").unlink(missing_ok=True)

    def _complete(self) -> list[Path]:
        return [p for p in self.folder.glob("[0-9]*") if p.is_dir() and p.name.isdecimal()]

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


def sealed(body: bytes) -> bytes:
    """A JSON value with its hash, as one JSON object.

    >>> len(sealed(b"[]")), json.loads(sealed(b"[]"))["state"]
    (91, [])
    """
    return b'{"sha256": "%s", "state": %s}' % (hashlib.sha256(body).hexdigest().encode(), body)


def _unsealed(data: bytes) -> Any:
    """The value of `sealed`.

    Raises:
        ValueError: a byte of it has changed.
    """
    body = data[len(sealed(b"")) - 1 : -1]
    if sealed(body) != data:
        raise ValueError(f"{PLAIN} does not fit its hash")
    return json.loads(body)


def _read(path: Path) -> State:
    """A checkpoint.

    Raises:
        OSError: a file of it can't be read.
        ValueError: its content is not what was written.
    """
    from safetensors.torch import load

    plain = _unsealed((path / PLAIN).read_bytes())
    if not isinstance(plain, dict) or not plain.keys() >= KEYS:
        raise ValueError(f"{PLAIN} is of another version")
    data = (path / TENSORS).read_bytes()
    if hashlib.sha256(data).hexdigest() != plain["tensors"]:
        raise ValueError(f"{TENSORS} does not fit its hash")
    if plain["done"] != int(path.name):
        raise ValueError(f"it was written as {plain['done']:08d}")
    return State(load(data), plain)


def _say(trainer: Trainer, line: str) -> None:
    if trainer.devices.is_main:
        print(line, file=sys.stderr, flush=True)


def _write(path: Path, data: bytes) -> None:
    """The file is on the disk when this returns."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """The names in a folder are on the disk when this returns, where the system can do that."""
    with suppress(OSError):
        place = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)
