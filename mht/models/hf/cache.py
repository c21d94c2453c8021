"""Keys and values of what has been read and written, in memory that is taken once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from mht.models.base import Decoding, Seen
from mht.models.hf.logits import position_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SizedLayer(DynamicLayer):
    """One layer's keys and values, in tensors with room for every position.

    Writing a position copies that position alone; transformers' own layer copies all that came
    before it. What attention is given is a view of the positions written so far.

    Args:
        positions: how many there will be at most.
    """

    def __init__(self, positions: int):
        super().__init__()
        self.positions = positions

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the memory in the shape and type of the first keys and values."""
        super().lazy_initialization(key_states, value_states)
        self._stores = [
            states.new_empty((*states.shape[:2], self.positions, states.shape[3]))
            for states in (key_states, value_states)
        ]
        self._show(0)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write (B, heads, t, D) behind what is there; all so far.

        Raises:
            ValueError: that is more than there is room for.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if end > self.positions:
            raise ValueError(f"the cache has room for {self.positions} positions, not {end}")
        for store, states in zip(self._stores, (key_states, value_states), strict=True):
            store[:, :, start:end] = states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Go on with some of the rows (m,) int64, in memory that is there where they are fewer."""
        end = self.get_seq_length()
        for i, store in enumerate(self._stores):
            kept = store[indices, :, :end]
            if len(indices) > len(store):
                store = store.new_empty((len(indices), *store.shape[1:]))
            self._stores[i] = store[: len(indices)]
            self._stores[i][:, :, :end] = kept
        self._show(end)

    def _show(self, end: int) -> None:
        self.keys, self.values = (store[:, :, :end] for store in self._stores)


def sized_cache(model: PreTrainedModel, positions: int) -> DynamicCache:
    """A cache for the model with room for this many positions.

    Layers of other kinds than full attention (sliding windows) keep transformers' own.
    """
    cache = DynamicCache(config=model.config)
    cache.layers = [
        SizedLayer(positions) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


class CachedDecoding(Decoding):
    """Reads each token once: keys and values of those before it are kept.

    Args:
        model: a causal LM.
        positions: the most tokens of a text.
    """

    def __init__(self, model: PreTrainedModel, positions: int):
        self.model, self.cache = model, sized_cache(model, positions)
        self.mask: Tensor | None = None  # of all that was read
        self.last = torch.zeros(0)  # (n, 1) positions of the last tokens

    def step(self, tokens: Tensor, mask: Tensor | None = None) -> Seen:
        """See `Decoding.step`."""
        if mask is None:
            mask = torch.ones_like(tokens, dtype=torch.bool)
        if self.mask is None:
            self.mask, positions = mask, position_ids(mask)
        else:
            self.mask = torch.cat([self.mask, mask], 1)
            positions = self.last + mask.long().cumsum(1)
        self.last = positions[:, -1:]
        seen: list[Tensor] = []
        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, -1:]))
        try:
            output = self.model(
                input_ids=tokens,
                attention_mask=self.mask,
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        finally:
            hook.remove()
        return Seen(output.logits[:, -1], seen[0])

    def select(self, index: Tensor) -> None:
        """See `Decoding.select`."""
        assert self.mask is not None
        self.cache.batch_select_indices(index)
        self.mask, self.last = self.mask[index], self.last[index]
