"""Limited context: a model that predicts each token from the last k tokens, and nothing else.

``P(x_t | x_<t) = P(x_t | x_{t-k}, ..., x_{t-1})``: a Markov chain of order k. Masking attention to
the last k tokens is not that: each layer adds another k tokens to what the one above it sees. After
L layers a logit depends on some L * k tokens. Here each prediction is a pass over its own
window of k tokens with positions from 0. So it can depend on nothing else, in training, in scoring
and in generation.

The price is that windows share no work. It takes k times the passes for the tokens that are scored;
there is no cache while writing, and nothing to keep from a trunk. The price is low where k is small
beside the length of a text.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mht.core.errors import ModelError

KEY = "mht_context_window"  # in the model's config.json, so that it is saved with the model


def limit_context(model: nn.Module, tokens: int) -> None:
    """Let a model see the last ``tokens`` tokens alone, from now on and where it is loaded again.

    Elsewhere than here nothing knows of the limit: transformers' own ``generate`` has none.

    Raises:
        ModelError: less than one token.
    """
    if tokens < 1:
        raise ModelError(f"model.context_window: should be at least 1 or null, got {tokens}")
    setattr(model.config, KEY, tokens)


def context_window(model: nn.Module) -> int | None:
    """How many tokens a model sees; None is all."""
    return getattr(model.config, KEY, None)


def windows(
    tokens: int, wanted: Tensor, input_ids: Tensor, attention_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """What is seen from each wanted position: the last real tokens up to it, itself included.

    Args:
        tokens: k, how many.
        wanted: (B, K) bool over the last K positions, N of them True.
        input_ids: (B, T) int64.
        attention_mask: (B, T) bool, True = a real token.

    Returns:
        Ids and mask, (N, k) or less where no text is that long, left-padded, in row-major order.

    >>> ids, everywhere = torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.bool)
    >>> windows(2, everywhere, ids, everywhere)[0].tolist()
    [[5, 5], [5, 6], [6, 7]]
    >>> windows(2, everywhere, ids, everywhere)[1].tolist()
    [[False, True], [True, True], [True, True]]
    """
    real = attention_mask.bool()
    packed = input_ids.gather(1, (~real).int().argsort(dim=1, stable=True))  # padding behind
    row, column = wanted.nonzero(as_tuple=True)
    seen = real.long().cumsum(1)[row, column + input_ids.shape[1] - wanted.shape[1]]
    width = min(tokens, int(seen.max()))
    index = seen[:, None] + torch.arange(-width, 0, device=seen.device)
    return packed[row[:, None], index.clamp(min=0)], index >= 0
