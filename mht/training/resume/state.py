"""Everything that changes in training: captured by name, and restored exactly."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from mht.devices.sharded import gather


class Stateful(Protocol):
    """A part of the training state."""

    def state_dict(self) -> Mapping[str, Any]:
        """All that changes: tensors, JSON-able data and mappings of these, keyed by text."""

    def load_state_dict(self, state: Any) -> Any:
        """Put back what `state_dict` gave; what does not fit raises an error."""


@dataclass
class State:
    """The states of several parts, by name.

    Attributes:
        tensors: by the part's name, a dot, and the keys that lead to it, joined by slashes.
        plain: what is no tensor, as JSON-able data, by the part's name.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)
    _places: set[int] = field(default_factory=set, repr=False, compare=False)

    def put(self, name: str, values: Mapping[str, Any]) -> None:
        """Keep the state of a part under its name."""
        self.plain[name] = self._without_tensors(f"{name}.", values)

    def _without_tensors(self, above: str, values: Mapping[str, Any]) -> dict[str, Any]:
        plain = {}
        for key, value in values.items():
            if isinstance(value, Tensor):
                self._keep(above + key, value)
            elif isinstance(value, Mapping):
                plain[key] = self._without_tensors(f"{above}{key}/", value)
            else:
                plain[key] = value
        return plain

    def _keep(self, name: str, value: Tensor) -> None:
        kept = gather(value).contiguous()
        shared = kept.data_ptr() in self._places  # safetensors takes no tensor twice
        self.tensors[name] = kept.clone() if shared else kept
        self._places.add(kept.data_ptr())

    def get(self, name: str) -> dict[str, Any]:
        """What `put` was given."""
        found = copy.deepcopy(self.plain[name])
        for path, tensor in self.tensors.items():
            part, _, inner = path.partition(f"{name}.")
            if not part and inner:
                *above, key = inner.split("/")
                place = found
                for step in above:
                    place = place[step]
                place[key] = tensor
        return found

    def copied(self) -> State:
        """The same with data of its own, its tensors on the CPU."""
        tensors = {name: tensor.to("cpu", copy=True) for name, tensor in self.tensors.items()}
        return State(tensors, copy.deepcopy(self.plain))


def capture(parts: Mapping[str, Stateful]) -> State:
    """The state of every part, by name."""
    state = State()
    for name, part in parts.items():
        state.put(name, part.state_dict())
    return state


def restore(parts: Mapping[str, Stateful], state: State) -> None:
    """Put back what `capture` gave, into parts made as those were, in their order.

    Raises:
        ValueError: a part has no state.
        Exception: a state does not fit its part; the parts before it are then restored.
    """
    for name, part in parts.items():
        if name not in state.plain:
            raise ValueError(f"it has no state of {name!r}")
        part.load_state_dict(state.get(name))
