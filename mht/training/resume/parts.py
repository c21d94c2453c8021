"""The states of weights, optimisers and random numbers, as a checkpoint keeps them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mht.devices.base import Devices
from mht.devices.sharded import scatter
from mht.optim.masters import Masters
from mht.optim.updater import Updater
from mht.training.resume.state import Stateful


class Weights:
    """The weights of a module that train; in float32 where the module computes in 16 bits.

    Frozen weights are left out: the identity of the run vouches for them.

    Args:
        name: of the module, for messages.
        module: the model or a head.
        masters: the weights that the optimiser moves.
    """

    def __init__(self, name: str, module: nn.Module, masters: Masters):
        self.name, self.module, self.masters = name, module, masters

    def state_dict(self) -> dict[str, Tensor]:
        """The masters of the module's parameters, by the parameters' names."""
        return self.masters.state_dict(self.module)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            ValueError: a weight has another name or shape.
        """
        masters = self.state_dict()
        shapes, other = ({k: tuple(t.shape) for k, t in d.items()} for d in (masters, state))
        for key in {**shapes, **other}:
            if shapes.get(key) != other.get(key):
                there, here = other.get(key), shapes.get(key)
                raise ValueError(f"{self.name}.{key} is {there} there, {here} here")
        parts = {key: scatter(state[key], master) for key, master in masters.items()}
        self.masters.load_state_dict(self.module, parts)


class OptimizerState:
    """An optimiser's state, each parameter's under its number."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """The groups, and by number each parameter's state."""
        state = self.optimizer.state_dict()
        each = {str(index): _flat(values) for index, values in state["state"].items()}
        return {"groups": state["param_groups"], "parameters": each}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        optimizer = self.optimizer
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        states = {
            int(index): {
                key: scatter(value, parameters[int(index)]) if isinstance(value, Tensor) else value
                for key, value in values.items()
            }
            for index, values in state["parameters"].items()
        }
        optimizer.load_state_dict({"state": states, "param_groups": state["groups"]})
        for index, values in states.items():
            _keep_dtypes(optimizer.state.get(parameters[index], {}), values)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """One parameter's state; bitsandbytes has part of it in a mapping inside, and reads both."""
    inner = [v for v in values.values() if isinstance(v, Mapping)]
    outer = {k: v for k, v in values.items() if not isinstance(v, Mapping)}
    return {**outer, **{k: v for values in inner for k, v in values.items()}}


def _keep_dtypes(loaded: Any, values: Mapping[str, Any]) -> None:
    """Undo torch's cast of the state to the parameter's dtype: float32 stays beside bfloat16.

    ``loaded`` is empty under DeepSpeed, which has the state elsewhere.
    """
    for key, value in values.items():
        if key in loaded and isinstance(value, Tensor) and loaded[key].dtype != value.dtype:
            loaded[key] = value.to(loaded[key].device)


def updater_parts(updater: Updater) -> dict[str, Stateful]:
    """The optimiser, its schedule and, for float16, the loss scale."""
    parts: dict[str, Stateful] = {
        "optimizer": OptimizerState(updater.optimizer),
        "scheduler": updater.scheduler,
    }
    return parts | ({"loss_scale": updater.scaler} if updater.scaler else {})


class RandomNumbers:
    """The states of all random number generators.

    Args:
        devices: whose GPUs are among them.
        own: generators beside the global ones, by name.
    """

    def __init__(self, devices: Devices, **own: torch.Generator):
        self.devices, self.own = devices, own

    def state_dict(self) -> dict[str, Any]:
        """Of the own generators, torch, Python, numpy and the GPUs."""
        version, words, gauss = random.getstate()
        numpy: dict[str, Any] = dict(np.random.get_state(legacy=False))
        numpy["state"] = {**numpy["state"], "key": numpy["state"]["key"].tolist()}
        gpus = enumerate(self._gpus())
        return {
            **{name: generator.get_state() for name, generator in self.own.items()},
            "torch": torch.get_rng_state(),
            "python": [version, list(words), gauss],
            "numpy": numpy,
            **{f"cuda{i}": torch.cuda.get_rng_state(gpu) for i, gpu in gpus},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        for name, generator in self.own.items():
            generator.set_state(state[name])
        torch.set_rng_state(state["torch"])
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        numpy = state["numpy"]
        keys = np.array(numpy["state"]["key"], dtype=np.uint32)
        np.random.set_state({**numpy, "state": {**numpy["state"], "key": keys}})
        for i, gpu in enumerate(self._gpus()):
            if f"cuda{i}" in state:
                torch.cuda.set_rng_state(state[f"cuda{i}"], gpu)

    def _gpus(self) -> list[torch.device]:
        """The GPUs that this process uses: all of them, or its own among several processes."""
        if self.devices.world > 1:
            return [self.devices.device] if self.devices.device.type == "cuda" else []
        return [torch.device("cuda", i) for i in range(torch.cuda.device_count())]


class Attributes:
    """Plain attributes of an object, by name."""

    def __init__(self, owner: Any, *names: str):
        self.owner, self.names = owner, names

    def state_dict(self) -> dict[str, Any]:
        """Their values."""
        return {name: getattr(self.owner, name) for name in self.names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        for name in self.names:
            setattr(self.owner, name, state[name])
