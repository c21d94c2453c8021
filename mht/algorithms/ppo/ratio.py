"""The check that PPO trains the distribution that was sampled: a ratio of 1 at first."""

from __future__ import annotations

import torch
from torch import Tensor

from mht.core.errors import UserError
from mht.devices.base import Devices
from mht.losses import masked_mean

# What ppo.ratio_tolerance is where it is null. Two passes over the same tokens differ by rounding:
# float32 by 1e-5 at most; bfloat16 by 0.03 and float16 by 0.005 on average.
# See docs/howto/precision.md.
TOLERANCES = {torch.bfloat16: 0.1, torch.float16: 0.015}
FULL_TOLERANCE = 1e-3


class RatioError(UserError, RuntimeError):
    """The policy that trains has another distribution than the one that was sampled from."""


class RatioCheck:
    """Compares log-probabilities of the same tokens from two passes of one policy.

    Args:
        dtype: what the policy computes in.
        tolerance: see ``ppo.ratio_tolerance``.
        devices: whose largest figure decides.

    Attributes:
        is_rounded: whether the policy computes in 16 bits. Then the mean is compared: the largest
            of many rounding errors is uninformative.
        tolerance: of the mean or of the largest.
    """

    def __init__(self, dtype: torch.dtype, tolerance: float | None, devices: Devices):
        self.is_rounded, self.devices = dtype in TOLERANCES, devices
        default = TOLERANCES.get(dtype, FULL_TOLERANCE)
        self.tolerance = default if tolerance is None else tolerance

    def __call__(
        self, new: Tensor, old: Tensor, mask: Tensor, where: str = "the first minibatch"
    ) -> None:
        """Check that the ratio before any update is 1.

        Args:
            new: (B, R) nats.
            old: (B, R) nats.
            mask: (B, R) bool, True = a real response token.
            where: what these are, for the message.

        Raises:
            RatioError: it is not.
        """
        away = torch.where(mask, torch.exp(new - old) - 1, 0.0).abs()
        found = float(masked_mean(away, mask) if self.is_rounded else away.max())
        found = self.devices.largest(found)
        if not found <= self.tolerance:
            raise RatioError(
                f"PPO: {'mean' if self.is_rounded else 'max'} |ratio - 1| is {found:.3g} on {where}"
                f", before any update, over ppo.ratio_tolerance {self.tolerance:g}. The policy was "
                "sampled from another distribution: look for a changed temperature, mask or "
                "padding, or for a training step in between"
            )
