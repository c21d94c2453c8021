"""Which `PolicyModel` reads a module."""

from __future__ import annotations

from torch import nn

from mht.models.base import PolicyModel
from mht.models.hf.model import TransformersModel


def policy_model(module: nn.Module) -> PolicyModel:
    """The module itself where it is a `PolicyModel`; any other is one of transformers'."""
    return module if isinstance(module, PolicyModel) else TransformersModel(module)
