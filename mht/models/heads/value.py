"""Value heads: what a state is worth, from the policy's activations. Every kind says 0 at first.

A linear map, an MLP, or a branch: a trainable copy of the top layers. The last two are those of
trlX (Havrilla et al. 2023, aclanthology.org/2023.emnlp-main.530). Their losses can be kept from the
language model; the branch's always is. Or a linear map that `mht.algorithms.ppo.critic` fits.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mht.config.policy import ValueHeadConfig
from mht.core.errors import ModelError
from mht.core.model_files.checks import check_tensors
from mht.core.model_files.folder import reading
from mht.models.hf.unpadded import padded
from mht.models.readers import policy_model
from mht.models.trunk import Trunk

if TYPE_CHECKING:
    from mht.core.records import Rollout

VALUE_HEAD_FILE = "value_head.safetensors"
ACTIVATIONS = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}


class LinearHead(nn.Linear):
    """A linear map from the last hidden state (..., H) to values (...).

    Args:
        width: H.
        config: whether its loss reaches the language model.
    """

    def __init__(self, width: int, config: ValueHeadConfig):
        super().__init__(width, 1)
        _zero(self)
        self.detach = config.detach

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around the policy's pass over the rollout whose values are wanted."""
        yield

    def forward(self, hidden: Tensor, rollout: Rollout | None = None) -> Tensor:
        """Values (...) float32 of hidden states (..., H)."""
        x = hidden.detach() if self.detach else hidden
        return super().forward(self._features(x.float())).squeeze(-1)

    def _features(self, hidden: Tensor) -> Tensor:
        return hidden


class MLPHead(LinearHead):
    """The same with a hidden layer below the linear map.

    Args:
        width: H.
        config: its hidden layer.
    """

    def __init__(self, width: int, config: ValueHeadConfig):
        inner = config.hidden_size or 2 * width
        super().__init__(inner, config)
        self.inner = nn.Linear(width, inner)
        self._activation = ACTIVATIONS[config.activation]

    def _features(self, hidden: Tensor) -> Tensor:
        return self._activation(self.inner(hidden))


class FittedHead(LinearHead):
    """A linear map that no loss trains.

    Args:
        width: H.
        config: its kind.
    """

    def __init__(self, width: int, config: ValueHeadConfig):
        super().__init__(width, config)
        self.detach = True
        self.requires_grad_(False)


class ValueBranch(nn.Module):
    """A linear map on a trainable copy of the model's top layers.

    It reads the output of the policy's layer below them, so it needs the policy's own pass. Then it
    runs its copy: the model's forward with everything below the copy passed over.

    Args:
        model: the policy's language model.
        reference: the frozen one, whose layers are copied: they have no adapters.
        config: how many layers.

    Raises:
        ModelError: the model has no more layers than that.
    """

    def __init__(self, model: nn.Module, reference: nn.Module, config: ValueHeadConfig):
        super().__init__()
        layers, count = policy_model(reference).layers, config.num_layers
        if count >= len(layers):
            raise ModelError(
                f"ppo.value_head.num_layers: {count} leaves nothing below the branch in a model of "
                f"{len(layers)} layers; set less, or another ppo.value_head.type"
            )
        shell, below = _with_own_top(reference, count)
        self.layers = nn.ModuleList(policy_model(shell).layers[-count:])
        self.norms = nn.ModuleList(policy_model(shell).norms)
        self.output = nn.Linear(policy_model(model).width, 1)
        _zero(self.output)
        # not as submodules: the rest of them is the policy's, and does not train with the branch
        self._parts = (shell, Trunk(below), policy_model(model).layers[-count - 1])
        policy_model(shell).prepare()
        self.requires_grad_(True)
        self._below: Tensor | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around the policy's pass over the rollout whose values are wanted."""

        def see(_: Any, args: Any, output: Any) -> None:
            self._below = padded(output[0] if isinstance(output, tuple) else output).detach()

        hook = self._parts[2].register_forward_hook(see)
        try:
            yield
        finally:
            hook.remove()

    def forward(self, hidden: Tensor, rollout: Rollout) -> Tensor:
        """Values (N,) float32 of the N response tokens, row-major, of the rollout just watched."""
        shell, trunk, _ = self._parts
        with trunk.replay(self._below):
            own = policy_model(shell).hidden(
                rollout.response_mask,
                rollout.input_ids[:, :-1],
                rollout.attention_mask[:, :-1],
            )
        self._below = None
        return self.output(own.float()).squeeze(-1)


ValueHead = LinearHead | ValueBranch


def make_value_head(
    model: nn.Module, reference: nn.Module, config: ValueHeadConfig, *, frozen: int
) -> ValueHead:
    """A value head for a policy, on its device.

    Args:
        model: the policy's language model.
        reference: the frozen one.
        config: which kind.
        frozen: how many of the model's lowest layers pass a stored output on.

    Raises:
        ModelError: a branch that does not fit the model.
    """
    width = policy_model(model).width
    if config.type != "branch":
        kind = {"linear": LinearHead, "mlp": MLPHead, "ridge": FittedHead}[config.type]
        return kind(width, config).to(model.device)
    unfrozen = len(policy_model(model).layers) - frozen
    if frozen and config.num_layers > unfrozen:
        raise ModelError(
            f"ppo.value_head.num_layers: {config.num_layers} is more than the {unfrozen} that "
            "model.num_layers_unfrozen leaves, and a rollout computes no layer below them: "
            "lower the one or raise the other"
        )
    return ValueBranch(model, reference, config).to(model.device)


def _zero(linear: nn.Linear) -> None:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)


def _with_own_top(model: nn.Module, count: int) -> tuple[nn.Module, list[nn.Module]]:
    """A copy with top layers and final norms of its own, sharing all other weights.

    Returns:
        The copy, and its lower layers, bottom first: modules of its own around shared weights.
    """
    reader = policy_model(model)
    layers = list(reader.layers)
    own = {id(p) for m in [*layers[-count:], *reader.norms] for p in m.parameters()}
    below = [copy.copy(layer) for layer in layers[:-count]]
    memo: dict[int, Any] = {id(p): p for p in model.parameters() if id(p) not in own}
    memo |= {id(layer): mine for layer, mine in zip(layers, below, strict=False)}
    return copy.deepcopy(model, memo), below


def save_value_head(
    state: Mapping[str, Tensor], config: ValueHeadConfig, folder: str | Path
) -> None:
    """Write a head's state beside a model, and its kind, which a linear map leaves out."""
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    kind: dict[str, str] = {"type": config.type, "activation": config.activation}
    save_file(state, Path(folder) / VALUE_HEAD_FILE, None if _is_linear(config) else kind)


def _is_linear(config: ValueHeadConfig) -> bool:
    return config.type in ("linear", "ridge")


def stored_value_head(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What `save_value_head` wrote: the head's type and activation, and its state.

    Raises:
        ModelError: the file is damaged, or holds no value head.
    """
    from safetensors import safe_open

    with reading(f"{file}: no value head can be loaded from it"):
        with safe_open(file, "pt") as opened:
            kind = opened.metadata() or {"type": "linear", "activation": "relu"}
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        last = {"linear": "weight", "mlp": "weight", "branch": "output.weight"}[kind["type"]]
        if kind["activation"] not in ACTIVATIONS or last not in state:
            raise ValueError(f"its weights are {', '.join(state) or 'none'}")
        check_tensors(state)
    return kind, state


def load_value_head(head: ValueHead, config: ValueHeadConfig, folder: str | Path) -> bool:
    """Restore the head that `save_value_head` wrote.

    Where the folder holds a head of another kind or size, this one stays as it is. A note says so,
    unless the head in the folder was never trained.

    Returns:
        Whether it was restored.

    Raises:
        ModelError: the file is damaged.
    """
    file = Path(folder) / VALUE_HEAD_FILE
    if not file.is_file():
        return False
    kind, state = stored_value_head(file)
    own = head.state_dict()
    alike = kind["type"] == ("linear" if _is_linear(config) else config.type) and (
        config.type != "mlp" or kind["activation"] == config.activation
    )
    if alike and {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in own.items()}:
        head.load_state_dict(state)
        return True
    last = "output.weight" if kind["type"] == "branch" else "weight"
    if state[last].any():
        print(
            f"note: {file} holds a value head of another kind or size ({kind['type']}) than "
            f"ppo.value_head asks for ({config.type}): this one begins at 0",
            file=sys.stderr,
            flush=True,
        )
    return False
