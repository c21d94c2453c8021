"""KL divergence from samples, and the coefficient of its penalty."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def kl_estimate(
    logprobs: Tensor, ref_logprobs: Tensor, kind: Literal["k1", "k2", "k3"] = "k1"
) -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens that the policy sampled.

    k1 is unbiased, k2 biased with low variance, k3 unbiased with low variance and never negative
    (Schulman, "Approximating KL divergence", joschu.net/blog/kl-approx.html).

    Args:
        logprobs: any shape, of the policy.
        ref_logprobs: the same shape, of the reference.
        kind: which estimator.

    >>> kl_estimate(torch.tensor([-1.0]), torch.tensor([-1.5]), "k1").item()
    0.5
    """
    log_ratio = logprobs - ref_logprobs
    if kind == "k1":
        return log_ratio
    if kind == "k2":
        return 0.5 * log_ratio.square()
    if kind == "k3":
        return torch.expm1(-log_ratio) + log_ratio
    raise ValueError(f"kind must be 'k1', 'k2' or 'k3', got {kind!r}")


class FixedKL:
    """A constant KL coefficient with the interface of `AdaptiveKL`."""

    def __init__(self, init: float):
        self.value = init

    def update(self, kl: float, n: int) -> None:
        """Leave the coefficient as it is."""


class AdaptiveKL:
    """A KL coefficient steered towards a target (Ziegler et al. 2019, arXiv:1909.08593, 2.2).

    Args:
        init: first value.
        target: nats per response.
        horizon: responses over which it reacts.

    >>> control = AdaptiveKL(0.1, target=6.0, horizon=100)
    >>> control.update(kl=12.0, n=10)  # far above: the error is clipped to 0.2
    >>> round(control.value, 6)
    0.102
    """

    def __init__(self, init: float, target: float, horizon: float):
        self.value, self.target, self.horizon = init, target, horizon

    def update(self, kl: float, n: int) -> None:
        """Move by the clipped relative error of ``kl`` (nats per response, mean of n responses)."""
        error = min(max(kl / self.target - 1.0, -0.2), 0.2)
        self.value *= 1.0 + error * n / self.horizon
