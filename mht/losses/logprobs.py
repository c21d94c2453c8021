"""Log-probabilities of tokens, and entropies, from logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each token under its logits divided by the temperature.

    Args:
        logits: (..., V) float.
        tokens: (...) int64.
        temperature: the one used in sampling.

    Returns:
        (...) float32, nats.
    """
    scaled = logits.float().div(temperature).flatten(0, -2)
    return -functional.cross_entropy(scaled, tokens.flatten(), reduction="none").view(tokens.shape)


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of the next-token distribution: (..., V) logits to (...) nats.

    >>> round(entropy(torch.zeros(1, 4)).item(), 4)  # log 4
    1.3863
    """
    logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
    return -(logprobs.exp() * logprobs).sum(-1)
