"""A causal language model of transformers, read as a `PolicyModel`.

Passes leave padding out (`unpadded`), compute logits where they are wanted (`logits`), and decode
with a cache that is taken once (`cache`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mht.data.examples.limits import context_of
from mht.data.text.special import end_ids
from mht.models.base import Decoding, PolicyModel
from mht.models.context import context_window
from mht.models.hf.layers import decoder_layers, final_norms
from mht.models.hf.logits import logits_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_plain: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


class TransformersModel(PolicyModel):
    """Reads a causal LM of transformers; knows nothing that the module does not.

    Args:
        module: the causal LM.
    """

    module: PreTrainedModel

    def __init__(self, module: PreTrainedModel):
        self.module = module

    @property
    def width(self) -> int:
        """See `PolicyModel.width`."""
        return self.module.config.get_text_config().hidden_size

    @property
    def vocabulary(self) -> int:
        """See `PolicyModel.vocabulary`."""
        return self.module.get_output_embeddings().weight.shape[0]

    @property
    def context(self) -> int | None:
        """See `PolicyModel.context`."""
        return context_of(self.module.config)

    @property
    def ends(self) -> set[int]:
        """See `PolicyModel.ends`."""
        generation = getattr(self.module, "generation_config", None)
        return end_ids(self.module.config.get_text_config(), generation)

    @property
    def embeddings(self) -> Tensor:
        """See `PolicyModel.embeddings`."""
        return self.module.get_input_embeddings().weight

    @property
    def layers(self) -> Sequence[nn.Module]:
        """See `PolicyModel.layers`."""
        return list(decoder_layers(self.module))

    @property
    def norms(self) -> Sequence[nn.Module]:
        """See `PolicyModel.norms`."""
        return final_norms(self.module)

    @property
    def head(self) -> nn.Linear | None:
        """See `PolicyModel.head`."""
        return self.module.get_output_embeddings() if has_plain_head(self.module) else None

    def prepare(self) -> None:
        """See `PolicyModel.prepare`."""
        has_plain_head(self.module)

    def hidden(self, wanted: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See `PolicyModel.hidden`."""
        return logits_at(self.module, wanted, input_ids, attention_mask, count=0)[1]

    def logits(
        self, wanted: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `PolicyModel.logits`."""
        return logits_at(self.module, wanted, input_ids, attention_mask)

    def start(self, positions: int) -> Decoding:
        """See `PolicyModel.start`; a model with a limited context has no cache."""
        from mht.models.hf.cache import CachedDecoding

        if context_window(self.module) is not None:
            return super().start(positions)
        return CachedDecoding(self.module, positions)


@torch.no_grad()
def has_plain_head(model: PreTrainedModel) -> bool:
    """Whether the model's logits are nothing but its last linear layer's output.

    Some architectures scale or squash them afterwards; this is found out by trying.
    """
    if model not in _plain:
        head = model.get_output_embeddings()
        ids = torch.tensor([[0, 1]], device=model.device)
        everywhere = torch.ones_like(ids, dtype=torch.bool)
        logits, hidden = logits_at(model, everywhere, ids, everywhere)
        _plain[model] = type(head) is nn.Linear and torch.equal(
            logits.float(), head(hidden).float()
        )
    return _plain[model]
