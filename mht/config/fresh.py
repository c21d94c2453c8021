"""Fresh models: made here with random weights, in place of a name.

A package adds a kind under the entry point ``mht.model``: a `FreshModel` whose `build` gives a
`mht.models.language_model.LanguageModel`. params.yaml chooses it by ``model.name.type``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from mht.core.bounds import Seed
from mht.core.component import Component, Registry, registry

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig


class Shape(NamedTuple):
    """Layers and positions of a model, None where it does not say."""

    layers: int | None = None
    context: int | None = None


class FreshModel(Component):
    """A fresh model with random weights, in place of a name: for tasks made of few words.

    Its tokenizer has one token for each word (what stands between spaces) of the data.

    Attributes:
        seed: of the weights. It is no part of ``base.seed``, so that another training seed does not
            fetch everything again. With several ``base.seeds`` each has weights of its own, those
            of this seed and of those that follow it.
    """

    registry: ClassVar[Registry] = registry("model")

    seed: Seed = 0

    def __str__(self) -> str:
        return f"a fresh {self.type}"

    def shape(self) -> Shape:
        """What the settings are checked against before the model is made."""
        return Shape()

    def build(self, settings: PretrainedConfig) -> nn.Module:
        """The language model in float32, its random weights drawn from torch's generator.

        Args:
            settings: ``vocab_size``, ``eos_token_id`` and ``pad_token_id`` of its tokenizer.
        """
        raise NotImplementedError
