"""Passes over a batch's real tokens alone: the layers see one row of N tokens, without padding.

All of a decoder but attention treats each token by itself, so padding is left out there and put
back around attention. Queries, keys and values go to (B, heads, T, D). The model's own attention
runs under its own mask, and its output for the real tokens comes back. The numbers are the same
but for rounding (docs/log.md has what it saves).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "mht_unpadded"  # of the attention, beside transformers' own "sdpa" and "eager"
# Not those whose layers carry something from token to token outside attention, or count positions
# by themselves.
FAMILIES = frozenset({"gpt2", "llama", "qwen2", "qwen3", "gemma2", "gemma3_text"})
ATTENTIONS = frozenset({"sdpa", "eager"})
WORTH = 0.9  # with more of the batch real, the copies around attention cost what would be saved


@dataclass(frozen=True)
class Layout:
    """Where the N tokens that pass through the layers are in a padded batch.

    Attributes:
        mask: (B, T) bool, True = such a token.
        places: (N,) int64, their places in the flattened batch, in order.
        attention: the name of the model's own attention.
    """

    mask: Tensor
    places: Tensor
    attention: str

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, ...) as (1, N, ...)."""
        return padded.flatten(0, 1).index_select(0, self.places)[None]

    def pad(self, packed: Tensor) -> Tensor:
        """(1, N, ...) as (B, T, ...), 0 at padding."""
        flat = packed.new_zeros(self.mask.numel(), *packed.shape[2:])
        return flat.index_copy(0, self.places, packed[0]).unflatten(0, self.mask.shape)


_current: ContextVar[Layout | None] = ContextVar("layout", default=None)


def layout_of(model: PreTrainedModel, wanted: Tensor, attention_mask: Tensor) -> Layout | None:
    """The layout of a pass, or None where it is to be made with padding.

    What stands behind a row's last wanted position is left out too: nothing looks at it.

    Args:
        model: a causal LM.
        wanted: (B, K) bool over the last K positions, True = the model's output is wanted here.
        attention_mask: (B, T) bool, True = a real token.

    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(model_type="llama", _attn_implementation="sdpa")
    >>> mask = torch.tensor([[False, True, True, True], [True, True, True, True]])
    >>> wanted = torch.tensor([[False, True], [True, False]])
    >>> layout_of(SimpleNamespace(config=config), wanted, mask).places.tolist()
    [1, 2, 3, 4, 5, 6]
    """
    config = model.config
    if config.model_type not in FAMILIES or config._attn_implementation not in ATTENTIONS:
        return None
    needed = wanted.flip(1).cummax(1).values.flip(1)
    before = needed[:, :1].expand(-1, attention_mask.shape[1] - wanted.shape[1])
    mask = attention_mask.bool() & torch.cat([before, needed], 1)
    places = mask.flatten().nonzero().squeeze(1)
    if len(places) > WORTH * mask.numel():
        return None
    return Layout(mask, places, config._attn_implementation)


def unpadded(hidden: Tensor) -> Tensor:
    """Hidden states (B, T, H) as the layers see them in the pass that is under way."""
    layout = _current.get()
    return hidden if layout is None else layout.pack(hidden)


def padded(hidden: Tensor) -> Tensor:
    """Hidden states as the layers see them in the pass that is under way, as (B, T, H)."""
    layout = _current.get()
    return hidden if layout is None else layout.pad(hidden)


@contextmanager
def without_padding(model: nn.Module, layout: Layout) -> Iterator[None]:
    """Within the block the model, or a layer of it, takes (1, N, ...) of what ``layout`` packs."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _mask)
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    token = _current.set(layout)
    try:
        for config in configs.values():
            config._attn_implementation = NAME
        yield
    finally:
        for config in configs.values():
            config._attn_implementation = layout.attention
        _current.reset(token)


def computed_again(layer: nn.Module) -> Callable[[], tuple[AbstractContextManager[None], ...]]:
    """For torch's ``checkpoint``: the layer's second computation sees what its first one does."""
    layout = _current.get()
    return lambda: (
        nullcontext(),
        nullcontext() if layout is None else without_padding(layer, layout),
    )


def _now() -> Layout:
    layout = _current.get()
    if layout is None:
        raise RuntimeError(f"attention {NAME!r} outside mht.models.hf.unpadded.without_padding")
    return layout


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The model's own attention on (B, heads, T, D), from and to one row of N tokens."""
    from transformers import AttentionInterface

    layout = _now()
    q, k, v = (layout.pad(x.transpose(1, 2)).transpose(1, 2) for x in (query, key, value))
    family = sys.modules[type(module).__module__]  # each has its own eager attention
    attend = (
        family.eager_attention_forward
        if layout.attention == "eager"
        else AttentionInterface()[layout.attention]
    )
    output, weights = attend(module, q, k, v, attention_mask, **kwargs)
    return layout.pack(output), weights


def _mask(*, batch_size: int, q_length: int, kv_length: int, **kwargs: Any) -> Tensor | None:
    """The model's own mask of the padded batch, whatever windows slide in it."""
    from transformers import AttentionMaskInterface

    layout = _now()
    rows, columns = layout.mask.shape
    sizes = {"batch_size": rows, "q_length": columns, "kv_length": columns}
    own = AttentionMaskInterface()[layout.attention]
    return own(**sizes, **kwargs | {"attention_mask": layout.mask})
