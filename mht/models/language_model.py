"""A language model that is not one of transformers': derive from `LanguageModel`.

A package registers it as a `mht.config.fresh.FreshModel`, which makes it from the data's words, and
builds it again from a folder that `save_pretrained` wrote.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mht.core.errors import ModelError
from mht.data.examples.limits import context_of
from mht.data.text.special import end_ids
from mht.models.base import PolicyModel
from mht.models.context import context_window, windows

if TYPE_CHECKING:
    from transformers import PretrainedConfig

WEIGHTS = "model.safetensors"


class LanguageModel(nn.Module, PolicyModel):
    """A `PolicyModel` that is its own module.

    A subclass adds its layers, and `states`. Texts are read anew for each token unless it
    overrides `start`; without `layers` every weight trains.

    Args:
        config: what ``config.json`` states, as `FreshModel.build` gets it.
        width: H, of the hidden states.

    Attributes:
        words: the word vectors (V, H).
        output: the linear map from hidden states to logits.
        name_or_path: the folder that it was loaded from; "" where it was made.
    """

    def __init__(self, config: PretrainedConfig, width: int):
        super().__init__()
        self.config, self.name_or_path = config, ""
        self.words = nn.Embedding(config.vocab_size, width)
        self.output = nn.Linear(width, config.vocab_size)

    @abstractmethod
    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T, H) hidden states under the logits of each next token.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, T) bool, True = a real token. Padding on either side changes no
                state of a real token.
        """

    @property
    def module(self) -> nn.Module:
        """The model itself."""
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.output.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.output.weight.dtype

    @property
    def width(self) -> int:
        """See `PolicyModel.width`."""
        return self.output.in_features

    @property
    def vocabulary(self) -> int:
        """See `PolicyModel.vocabulary`."""
        return self.output.out_features

    @property
    def context(self) -> int | None:
        """See `PolicyModel.context`."""
        return context_of(self.config)

    @property
    def ends(self) -> set[int]:
        """See `PolicyModel.ends`."""
        return end_ids(self.config)

    @property
    def embeddings(self) -> Tensor:
        """See `PolicyModel.embeddings`."""
        return self.words.weight

    @property
    def layers(self) -> Sequence[nn.Module]:
        """See `PolicyModel.layers`."""
        raise ModelError(
            f"model.num_layers_unfrozen: {type(self).__name__} has no list of layers; set 'all'"
        )

    @property
    def head(self) -> nn.Linear:
        """See `PolicyModel.head`."""
        return self.output

    def hidden(self, wanted: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See `PolicyModel.hidden`."""
        limit = context_window(self)
        if limit is not None:
            input_ids, attention_mask = windows(limit, wanted, input_ids, attention_mask)
            wanted = wanted.new_ones(len(input_ids), 1)
        return self.states(input_ids, attention_mask)[:, -wanted.shape[1] :][wanted]

    def logits(
        self, wanted: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `PolicyModel.logits`."""
        hidden = self.hidden(wanted, input_ids, attention_mask)
        return self.output(hidden), hidden

    def save_pretrained(
        self, folder: str | Path, state_dict: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write ``config.json`` and the weights.

        Args:
            folder: where to.
            state_dict: the weights; None takes the model's own.
        """
        from safetensors.torch import save_file

        state = self.state_dict() if state_dict is None else state_dict
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(folder)
        plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        save_file(plain, Path(folder) / WEIGHTS)
