"""A value head's file beside its model."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from mht.core.model_files.checks import check_tensors
from mht.core.model_files.folder import reading
from mht.models.value.critics import Critic
from mht.models.value.heads import ACTIVATIONS

VALUE_HEAD_FILE = "value_head.safetensors"
PLAIN = {"type": "linear", "activation": "relu"}  # of a file that does not say


def save_value_head(state: Mapping[str, Tensor], critic: Critic, folder: str | Path) -> None:
    """Write a head's state beside a model, with its kind unless it is a linear map."""
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    kind = critic.stored
    save_file(state, Path(folder) / VALUE_HEAD_FILE, None if kind["type"] == "linear" else kind)


def stored_value_head(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What `save_value_head` wrote: the head's type and activation, and its state.

    Raises:
        ModelError: the file is damaged, or holds no value head.
    """
    from safetensors import safe_open

    with reading(f"{file}: no value head can be loaded from it"):
        with safe_open(file, "pt") as opened:
            kind = PLAIN | (opened.metadata() or {})
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if kind["activation"] not in ACTIVATIONS or not _has_last(kind["type"], state):
            raise ValueError(f"its weights are {', '.join(state) or 'none'}")
        check_tensors(state)
    return kind, state


def _has_last(kind: str, state: Mapping[str, Tensor]) -> bool:
    """Whether the last layer is there; a kind from outside has any weights."""
    last = {"linear": "weight", "mlp": "weight", "branch": "output.weight"}
    return last[kind] in state if kind in last else bool(state)


def load_value_head(head: nn.Module, critic: Critic, folder: str | Path) -> bool:
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
    shapes, wanted = ({k: v.shape for k, v in s.items()} for s in (state, head.state_dict()))
    if shapes == wanted and critic.stored.items() <= kind.items():
        head.load_state_dict(state)
        return True
    last = state.get("output.weight", state.get("weight"))
    if last is None or last.any():
        print(
            f"note: {file} holds a value head of another kind or size ({kind['type']}) than "
            f"ppo.value_head asks for ({critic.type}): this one begins at 0",
            file=sys.stderr,
            flush=True,
        )
    return False
