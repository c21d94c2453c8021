"""Critics: what estimates the value of a state, as params.yaml names it in ``ppo.value_head``.

A critic makes the policy's value head, and what fits the head where no loss trains it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mht.core.bounds import Positive, Rate, Share
from mht.core.component import Component, Registry, build, registry

if TYPE_CHECKING:
    from torch import nn

    from mht.models.value.branch import ValueBranch
    from mht.models.value.heads import FittedHead, LinearHead, MLPHead
    from mht.models.value.ridge import RidgeCritic

CRITICS = registry("critic")


class Critic(Component):
    """What estimates the value of a state; every kind gives 0 at first."""

    registry: ClassVar[Registry] = CRITICS

    @abstractmethod
    def head(self, model: nn.Module, reference: nn.Module, *, frozen: int) -> nn.Module:
        """The value head of a policy; `mht.models.value.heads.LinearHead` shows what it has.

        Args:
            model: the policy's language model.
            reference: the frozen one.
            frozen: how many of the model's lowest layers pass a stored output on.

        Raises:
            ModelError: the head does not fit the model.
        """

    def fit(self, head: Any) -> RidgeCritic | None:
        """What fits the head to each rollout; None where the value loss trains it."""
        return None

    @property
    def stored(self) -> dict[str, str]:
        """What is written beside the head's weights, to know them by."""
        return {"type": self.type}


@CRITICS.register("linear")
class Linear(Critic):
    """A linear map of the policy's last hidden state.

    Attributes:
        detach: the value loss trains the head alone and not the language model.
    """

    type: str = "linear"
    detach: bool = False

    def head(self, model: nn.Module, reference: nn.Module, *, frozen: int) -> LinearHead:
        """Of the model's width."""
        from mht.models.readers import policy_model
        from mht.models.value.heads import LinearHead

        return LinearHead(policy_model(model).width, detach=self.detach)


@CRITICS.register("mlp")
class MLP(Critic):
    """A hidden layer below the linear map, as in trlX (aclanthology.org/2023.emnlp-main.530).

    Attributes:
        detach: the value loss trains the head alone and not the language model.
        hidden_size: width of the hidden layer; null is twice the model's.
        activation: of the hidden layer.
    """

    type: str = "mlp"
    detach: bool = False
    hidden_size: Positive | None = None
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"

    def head(self, model: nn.Module, reference: nn.Module, *, frozen: int) -> MLPHead:
        """Of the model's width."""
        from mht.models.readers import policy_model
        from mht.models.value.heads import MLPHead

        width = policy_model(model).width
        size = self.hidden_size or 2 * width
        return MLPHead(width, size, activation=self.activation, detach=self.detach)

    @property
    def stored(self) -> dict[str, str]:
        """With the activation."""
        return {"type": self.type, "activation": self.activation}


@CRITICS.register("branch")
class Branch(Critic):
    """A trainable copy of the top layers with a linear map on it, as in trlX (same paper).

    It reads the activations below the copied layers, and its loss never moves the policy.

    Attributes:
        num_layers: fewer than the model has, and no more than model.num_layers_unfrozen.
    """

    type: str = "branch"
    num_layers: Positive = 2

    def head(self, model: nn.Module, reference: nn.Module, *, frozen: int) -> ValueBranch:
        """Its layers are copied from the reference.

        Raises:
            ModelError: too many layers for the model, or for those that train.
        """
        from mht.core.errors import ModelError
        from mht.models.readers import policy_model
        from mht.models.value.branch import ValueBranch

        unfrozen = len(policy_model(model).layers) - frozen
        if frozen and self.num_layers > unfrozen:
            raise ModelError(
                f"ppo.value_head.num_layers: {self.num_layers} is more than the {unfrozen} that "
                "model.num_layers_unfrozen leaves, and a rollout computes no layer below them: "
                "lower the one or raise the other"
            )
        return ValueBranch(model, reference, self.num_layers)


@CRITICS.register("ridge")
class Ridge(Critic):
    """A linear map fitted to what followed in this and past rollouts; no loss trains it.

    Attributes:
        shrinkage: tokens' worth of pull of its weights towards 0.
        decay: with each rollout, the past counts this share of what it did.
    """

    type: str = "ridge"
    shrinkage: Rate = 2000.0
    decay: Share = 0.8

    def head(self, model: nn.Module, reference: nn.Module, *, frozen: int) -> FittedHead:
        """Of the model's width."""
        from mht.models.readers import policy_model
        from mht.models.value.heads import FittedHead

        return FittedHead(policy_model(model).width)

    def fit(self, head: FittedHead) -> RidgeCritic:
        """By ridge regression."""
        from mht.models.value.ridge import RidgeCritic

        return RidgeCritic(head, shrinkage=self.shrinkage, decay=self.decay)

    @property
    def stored(self) -> dict[str, str]:
        """As of a linear map."""
        return {"type": "linear"}


def make_critic(spec: Critic | Mapping[str, Any] | None = None) -> Critic:
    """The critic that plain data describes; None is the linear map.

    Raises:
        ConfigError: no such critic or option; the message lists all mistakes.
    """
    if isinstance(spec, Critic):
        return spec
    return build(Critic, {"type": "linear", **(spec or {})})  # type: ignore[type-abstract]
