"""What PPO's updates learn from: a rollout, assessed."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from mht.core.records import Rollout
from mht.generation.sampling.rollout import trimmed


@dataclass(frozen=True)
class Experience:
    """A rollout with all that the updates need; everything is (B, R) and 0 or unused at padding.

    Attributes:
        rollout: what was sampled, with the trunk's output.
        old_logprobs: under the policy at the start of the update; of fresh rows it is the one that
            sampled.
        old_values: of the value head then.
        ref_logprobs: under the reference.
        rewards: KL penalty and score, per token.
        advantages: whitened under the mask.
        returns: advantages + values, before whitening.
        weights: by which a token's policy loss counts; None is 1 everywhere.
        value_weights: by which its value loss counts; None is 1 everywhere.
    """

    rollout: Rollout
    old_logprobs: Tensor
    old_values: Tensor
    ref_logprobs: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor
    weights: Tensor | None = None
    value_weights: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """(B, R) bool, True = a real response token."""
        return self.rollout.response_mask

    @property
    def columns(self) -> dict[str, Tensor]:
        """The values of every token beside the rollout, (B, R) each."""
        named = ((f.name, getattr(self, f.name)) for f in fields(self)[1:])
        return {name: values for name, values in named if values is not None}

    @property
    def surprises(self) -> Tensor:
        """(B,) mean absolute advantages of the responses' tokens, before whitening."""
        sizes = (self.returns - self.old_values).abs().masked_fill(~self.mask, 0.0)
        return sizes.sum(1) / self.mask.sum(1).clamp(min=1)

    def weighted(self, responses: Tensor) -> Experience:
        """The policy losses of the first rows count by the weights (b,) of their responses."""
        weights = torch.ones_like(self.advantages) if self.weights is None else self.weights.clone()
        weights[: len(responses)] *= responses.to(weights.device)[:, None]
        return replace(self, weights=weights)

    def rows(self, index: Tensor) -> Experience:
        """Some of the rows, columns that are all padding trimmed off."""
        rollout = trimmed(self.rollout.rows(index))
        width = rollout.response_ids.shape[1]
        return Experience(rollout, **{n: v[index, :width] for n, v in self.columns.items()})
