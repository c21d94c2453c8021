"""Checkpoints of a training run: written whole or not at all, read back only if whole.

A killed run goes on from its newest checkpoint and ends with the very bytes that the uninterrupted
one would have written (on a CPU). Tensors are safetensors, the rest is JSON: nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mht.errors import UserError
from mht.launched import is_main_process
from mht.rewards import Reward
from mht.trainers.sharded import gather, scatter

if TYPE_CHECKING:
    from mht.trainers.history import History
    from mht.trainers.hybrid import HybridTrainer

TENSORS, PLAIN = "state.safetensors", "state.json"
KEEP = 2


class CheckpointError(UserError):
    """The folder holds the checkpoints of another run."""


@dataclass
class State:
    """All that changes while training.

    Attributes:
        tensors: by dotted name.
        plain: what is no tensor, as JSON-able data.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)
    _places: set[int] = field(default_factory=set, repr=False, compare=False)

    def put(self, name: str, values: Mapping[str, Any]) -> None:
        """Keep a mapping of tensors, numbers and the like under a name."""
        self.plain[name] = {}
        for key, value in values.items():
            if isinstance(value, Tensor):
                kept = gather(value).contiguous()
                shared = kept.data_ptr() in self._places  # safetensors takes no tensor twice
                self.tensors[f"{name}.{key}"] = kept.clone() if shared else kept
                self._places.add(kept.data_ptr())
            else:
                self.plain[name][key] = value

    def get(self, name: str) -> dict[str, Any]:
        """What `put` was given."""
        prefix = f"{name}."
        tensors = {k[len(prefix) :]: t for k, t in self.tensors.items() if k.startswith(prefix)}
        return {**self.plain[name], **tensors}


def capture(trainer: HybridTrainer) -> State:
    """The trainer's state: weights that train, optimiser, schedule, data, random numbers, rewards.

    Of a model in 16 bits the float32 master weights are kept, which say what it computes with.
    Frozen weights are not in it: the identity of the run vouches for them.
    """
    state = State()
    policy, updater = trainer.policy, trainer.updater
    state.put("model", updater.masters.state_dict(policy.model))
    state.put("value_head", updater.masters.state_dict(policy.value_head))
    optimizer = updater.optimizer.state_dict()
    for index, values in optimizer["state"].items():
        state.put(f"optimizer.{index}", _flat(values))
    state.plain["optimizer"] = {
        "groups": optimizer["param_groups"],
        "indices": list(optimizer["state"]),
    }
    state.put("scheduler", updater.scheduler.state_dict())
    state.put("loss_scale", updater.scaler.state_dict() if updater.scaler else {})
    state.plain["ppo"] = trainer.ppo.state_dict()
    state.put("random", _random_state(trainer))
    cursors = (trainer.sft_data, trainer.ppo_data)
    state.plain["cursors"] = [None if c is None else c.position for c in cursors]
    reward = trainer.reward
    state.plain["reward"] = reward.state_dict() if isinstance(reward, Reward) else None
    state.plain["step"] = trainer.step
    return state


def restore(trainer: HybridTrainer, state: State) -> None:
    """Put back what `capture` gave, into a trainer made as that one was."""
    policy, updater = trainer.policy, trainer.updater
    for module, name in ((policy.model, "model"), (policy.value_head, "value_head")):
        masters = updater.masters.state_dict(module)
        values = state.get(name)
        parts = {key: scatter(values[key], master) for key, master in masters.items()}
        updater.masters.load_state_dict(module, parts)
    optimizer = state.plain["optimizer"]
    parameters = [p for group in updater.optimizer.param_groups for p in group["params"]]
    states = {
        index: {
            key: scatter(value, parameters[index]) if isinstance(value, Tensor) else value
            for key, value in state.get(f"optimizer.{index}").items()
        }
        for index in optimizer["indices"]
    }
    updater.optimizer.load_state_dict({"state": states, "param_groups": optimizer["groups"]})
    _keep_dtypes(updater.optimizer, states)
    updater.scheduler.load_state_dict(state.get("scheduler"))
    if updater.scaler:
        updater.scaler.load_state_dict(state.get("loss_scale"))
    trainer.ppo.load_state_dict(state.plain["ppo"])
    _set_random_state(trainer, state.get("random"))
    for cursor, position in zip(
        (trainer.sft_data, trainer.ppo_data), state.plain["cursors"], strict=True
    ):
        if cursor is not None:
            cursor.position = position
    if isinstance(trainer.reward, Reward):
        trainer.reward.load_state_dict(state.plain["reward"])
    trainer.step = state.plain["step"]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """One parameter's state; bitsandbytes has part of it in a mapping inside, and reads both."""
    inner = [v for v in values.values() if isinstance(v, Mapping)]
    outer = {k: v for k, v in values.items() if not isinstance(v, Mapping)}
    return {**outer, **{k: v for values in inner for k, v in values.items()}}


def _keep_dtypes(optimizer: torch.optim.Optimizer, states: Mapping[int, Mapping[str, Any]]) -> None:
    """Undo torch's cast of the state to the parameters' dtype: float32 stays beside bfloat16."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, values in states.items():
        loaded = optimizer.state[parameters[index]]
        for key, value in values.items():
            if isinstance(value, Tensor) and loaded[key].dtype != value.dtype:
                loaded[key] = value.to(loaded[key].device)


def _random_state(trainer: HybridTrainer) -> dict[str, Any]:
    version, words, gauss = random.getstate()
    numpy: dict[str, Any] = dict(np.random.get_state(legacy=False))
    numpy["state"] = {**numpy["state"], "key": numpy["state"]["key"].tolist()}
    state = {
        "responses": trainer.generator.get_state(),
        "minibatches": trainer.ppo.generator.get_state(),
        "torch": torch.get_rng_state(),
        "python": [version, list(words), gauss],
        "numpy": numpy,
    }
    gpus = enumerate(_gpus(trainer))
    return state | {f"cuda{i}": torch.cuda.get_rng_state(gpu) for i, gpu in gpus}


def _gpus(trainer: HybridTrainer) -> list[torch.device]:
    """The GPUs that this process uses: all of them, or its own among several processes."""
    if trainer.devices.world > 1:
        return [trainer.devices.device] if trainer.devices.device.type == "cuda" else []
    return [torch.device("cuda", i) for i in range(torch.cuda.device_count())]


def _set_random_state(trainer: HybridTrainer, state: Mapping[str, Any]) -> None:
    trainer.generator.set_state(state["responses"])
    trainer.ppo.generator.set_state(state["minibatches"])
    torch.set_rng_state(state["torch"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numpy = state["numpy"]
    keys = np.array(numpy["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": keys}})
    for i, gpu in enumerate(_gpus(trainer)):
        if f"cuda{i}" in state:
            torch.cuda.set_rng_state(state[f"cuda{i}"], gpu)


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
