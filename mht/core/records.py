"""The records that flow through the pipeline, with the shape of every tensor.

Shapes: B batch, P prompt (left-padded), R response (right-padded), T = P + R.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Scored:
    """A reward's answer for a batch.

    Attributes:
        score: B numbers, one per response, before any KL penalty.
        components: name in the reward tree (dotted) to that node's B values. ``<name>`` holds the
            raw values, ``<name>.post`` the values after its own postprocess. A node's other figures
            are B numbers under ``<name>.<what>``.
    """

    score: list[float]
    components: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rollout:
    """A batch of prompts with the policy's responses, as token ids (the record; text is derived).

    Attributes:
        prompt_ids: (B, P) int64, left-padded.
        prompt_mask: (B, P) bool, True = a real prompt token.
        response_ids: (B, R) int64, right-padded; EOS included where the policy gave it.
        response_mask: (B, R) bool, True = a real response token.
        ended: (B,) bool, True = stopped by EOS, False = cut by the length limit.
        logprobs: (B, R) float32 as they were when sampled, 0 at padding; None if not known.
        trunk: (B, T - 1, H) output of the policy's frozen layers, or None: no need to compute it
            again for the reference and for every epoch.
        entropies: (B, R) float32 nats of what each token was drawn from, 0 at padding; or None.
        hidden: (B, R, H) what the head saw for each token, 0 at padding: a value head needs no
            pass of its own; or None.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    response_ids: Tensor
    response_mask: Tensor
    ended: Tensor
    logprobs: Tensor | None = None
    trunk: Tensor | None = None
    entropies: Tensor | None = None
    hidden: Tensor | None = None

    def __len__(self) -> int:
        return self.prompt_ids.shape[0]

    @property
    def prompts(self) -> Tensor:
        """(B,) int64, equal where the prompts are."""
        return distinct(self.prompt_ids, self.prompt_mask)[1]

    @property
    def input_ids(self) -> Tensor:
        """(B, T) prompt and response."""
        import torch

        return torch.cat([self.prompt_ids, self.response_ids], 1)

    @property
    def attention_mask(self) -> Tensor:
        """(B, T) bool, True = a real token."""
        import torch

        return torch.cat([self.prompt_mask, self.response_mask], 1)

    @property
    def prompt_tokens(self) -> list[list[int]]:
        """The tokens of each prompt, without padding."""
        return _token_lists(self.prompt_ids, self.prompt_mask)

    @property
    def response_tokens(self) -> list[list[int]]:
        """The tokens of each response, without padding."""
        return _token_lists(self.response_ids, self.response_mask)

    @property
    def lengths(self) -> Tensor:
        """(B,) int64, real tokens of each response."""
        return self.response_mask.sum(1)

    def rows(self, index: Tensor) -> Rollout:
        """The rollout of some of the rows, in the order of ``index`` (int64)."""
        picked = {f.name: getattr(self, f.name) for f in fields(self)}
        return Rollout(**{k: None if v is None else v[index] for k, v in picked.items()})


def _token_lists(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[real].tolist() for row, real in zip(ids, mask, strict=True)]


def distinct(prompt_ids: Tensor, prompt_mask: Tensor) -> tuple[Tensor, Tensor]:
    """A row (U,) of each different prompt, and which of these U each row (B,) has; int64.

    Args:
        prompt_ids: (B, P) int64, left-padded.
        prompt_mask: (B, P) bool, True = a real token.
    """
    different, which = prompt_ids.masked_fill(~prompt_mask, -1).unique(dim=0, return_inverse=True)
    numbers = which.new_ones(len(which)).cumsum(0) - 1
    first = which.new_full((len(different),), len(which))
    return first.scatter_reduce(0, which, numbers, "amin"), which
