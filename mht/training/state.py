"""All that changes while a trainer trains: captured, and put back exactly."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mht.devices.sharded import gather, scatter
from mht.rewards import Reward

if TYPE_CHECKING:
    from mht.training.hybrid import HybridTrainer


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

    def copied(self) -> State:
        """The same with data of its own, its tensors on the CPU."""
        tensors = {name: tensor.to("cpu", copy=True) for name, tensor in self.tensors.items()}
        return State(tensors, copy.deepcopy(self.plain))


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
    if trainer.ppo.critic is not None:
        state.put("critic", trainer.ppo.critic.state_dict())
    state.put("random", _random_state(trainer))
    state.plain["cursors"] = trainer.practice.positions
    if trainer.practice.memory is not None:
        state.put("memory", trainer.practice.state_dict())
    reward = trainer.reward
    state.plain["reward"] = reward.state_dict() if isinstance(reward, Reward) else None
    state.plain["step"] = trainer.step
    return state


def restore(trainer: HybridTrainer, state: State) -> None:
    """Put back what `capture` gave, into a trainer made as that one was.

    Raises:
        ValueError: the weights that train have other names or shapes.
        Exception: whatever else does not fit; the trainer is then half restored.
    """
    policy, updater = trainer.policy, trainer.updater
    for module, name in ((policy.model, "model"), (policy.value_head, "value_head")):
        masters = updater.masters.state_dict(module)
        values = state.get(name)
        _check_shapes(name, masters, values)
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
    if trainer.ppo.critic is not None:
        trainer.ppo.critic.load_state_dict(state.get("critic"))
    _set_random_state(trainer, state.get("random"))
    trainer.practice.positions = state.plain["cursors"]
    if trainer.practice.memory is not None:
        trainer.practice.load_state_dict(state.get("memory"))
    if isinstance(trainer.reward, Reward):
        trainer.reward.load_state_dict(state.plain["reward"])
    trainer.step = state.plain["step"]


def _check_shapes(name: str, mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Nothing is left out, and nothing is broadcast."""
    shapes, other = ({k: tuple(t.shape) for k, t in d.items()} for d in (mine, theirs))
    wrong = [key for key in {**shapes, **other} if shapes.get(key) != other.get(key)]
    if wrong:
        key = wrong[0]
        raise ValueError(f"{name}.{key} is {other.get(key)} there, {shapes.get(key)} here")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """One parameter's state; bitsandbytes has part of it in a mapping inside, and reads both."""
    inner = [v for v in values.values() if isinstance(v, Mapping)]
    outer = {k: v for k, v in values.items() if not isinstance(v, Mapping)}
    return {**outer, **{k: v for values in inner for k, v in values.items()}}


def _keep_dtypes(optimizer: torch.optim.Optimizer, states: Mapping[int, Mapping[str, Any]]) -> None:
    """Undo torch's cast of the state to the parameters' dtype: float32 stays beside bfloat16."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, values in states.items():
        loaded = optimizer.state.get(parameters[index], {})  # DeepSpeed's has it elsewhere
        for key, value in values.items():
            if key in loaded and isinstance(value, Tensor) and loaded[key].dtype != value.dtype:
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
