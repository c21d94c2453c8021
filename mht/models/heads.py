"""The further heads of a policy: made from the settings, saved beside the model, restored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from mht.config.heads import Head
from mht.core.errors import ModelError
from mht.core.model_files.checks import check_tensors
from mht.core.model_files.folder import reading
from mht.models.readers import policy_model

HEADS_FILE = "heads.safetensors"


def make_heads(configs: Mapping[str, Head], model: nn.Module) -> dict[str, nn.Module]:
    """The heads by name, on the model's device."""
    width = policy_model(model).width
    return {name: config.make(width).to(model.device) for name, config in configs.items()}


def save_heads(heads: Mapping[str, nn.Module], folder: str | Path) -> None:
    """Write the heads' weights beside a model; no file where there are no heads."""
    from safetensors.torch import save_file

    state = nn.ModuleDict(heads).state_dict()
    if state:
        plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        save_file(plain, Path(folder) / HEADS_FILE)


def load_heads(heads: Mapping[str, nn.Module], folder: str | Path) -> None:
    """Restore the heads that `save_heads` wrote; a head that the folder lacks stays as it is.

    Raises:
        ModelError: the file is damaged, or a head in it has other weights.
    """
    from safetensors.torch import load_file

    file = Path(folder) / HEADS_FILE
    if not heads or not file.is_file():
        return
    with reading(f"{file}: no heads can be loaded from it"):
        stored = load_file(file)
        check_tensors(stored)
    for name, head in heads.items():
        prefix = f"{name}."
        own = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
        if own and _shapes(own) != _shapes(head.state_dict()):
            raise ModelError(
                f"{file}: its head {name!r} has other weights than ppo.heads.{name} needs: give "
                "the head another name, or begin with a model without it"
            )
        if own:
            head.load_state_dict(own)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}
