"""Small transformers with random weights: the built-in kind of fresh model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from mht.config.fresh import FreshModel, Shape
from mht.core.bounds import Positive
from mht.core.component import refuse

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@FreshModel.registry.register("scratch")
class Scratch(FreshModel):
    """A fresh transformer with random weights, in place of a name: for tasks made of few words.

    Its tokenizer has one token for each word (what stands between spaces) of the data.

    Attributes:
        type: "scratch".
        seed: of the weights. It is no part of ``base.seed``, so that another training seed does not
            fetch everything again. With several ``base.seeds`` each has weights of its own, those
            of this seed and of those that follow it.
        architecture: its layers are those of this family.
        layers: how many.
        width: of the hidden states; the feed-forward layers are four times as wide.
        heads: attention heads in each layer; ``width`` is divided among them.
        context: most tokens of a prompt with its response.
    """

    type: Literal["scratch"] = "scratch"
    architecture: Literal["llama", "gpt2"] = "llama"
    layers: Annotated[int, Field(gt=0, le=1000)] = 2
    width: Annotated[int, Field(gt=0, le=2**16)] = 64
    heads: Positive = 4
    context: Annotated[int, Field(gt=0, le=2**20)] = 64

    def __str__(self) -> str:
        return f"a fresh {self.architecture} of {self.layers} layers, {self.width} wide"

    @model_validator(mode="after")
    def _heads_fit(self) -> Scratch:
        if self.width % (2 * self.heads):  # rotary positions turn pairs of numbers
            what = f"{self.heads} heads of an even size do not make up a width of {self.width}"
            refuse([("heads", f"{what}: set one so that width / heads is even")])
        return self

    def shape(self) -> Shape:
        """See `FreshModel.shape`."""
        return Shape(self.layers, self.context)

    def build(self, settings: PretrainedConfig) -> PreTrainedModel:
        """See `FreshModel.build`; no dropout, which PPO could not train with."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        named = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
        common = {name: getattr(settings, name) for name in named}
        sizes: dict[str, dict[str, Any]] = {
            "llama": {
                "hidden_size": self.width,
                "intermediate_size": 4 * self.width,
                "num_hidden_layers": self.layers,
                "num_attention_heads": self.heads,
                "num_key_value_heads": self.heads,
                "max_position_embeddings": self.context,
            },
            "gpt2": {
                "n_embd": self.width,
                "n_layer": self.layers,
                "n_head": self.heads,
                "n_positions": self.context,
                "resid_pdrop": 0.0,
                "embd_pdrop": 0.0,
                "attn_pdrop": 0.0,
            },
        }
        config = AutoConfig.for_model(self.architecture, **common, **sizes[self.architecture])
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
