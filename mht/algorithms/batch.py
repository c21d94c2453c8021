"""The records that algorithms learn from, and the result of a step.

Shapes: B batch, T prompt and target, N pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from mht.core.records import Rollout
    from mht.models.references import Items

Stats = dict[str, float]


@dataclass(frozen=True)
class Examples:
    """Prompts with their targets.

    Attributes:
        tensors: (B, T) int64 ``input_ids``, ``attention_mask`` (1 = a real token) and ``labels``
            (-100 = not trained on).
        weights: (B,) by which each row's loss counts; None is 1 everywhere.
    """

    tensors: Mapping[str, Tensor]
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tensors["labels"])

    def rows(self, index: slice) -> Examples:
        """Some of the rows."""
        tensors = {name: values[index] for name, values in self.tensors.items()}
        return Examples(tensors, None if self.weights is None else self.weights[index])


@dataclass(frozen=True)
class Replayed:
    """Past responses, of earlier policies, that an update learns from once more.

    Attributes:
        rollout: b prompts and responses, with the logprobs as sampled.
        scores: b numbers, as the reward gave them then.
        ages: PPO steps since each was sampled, b numbers.
        items: each prompt's row of the data, for references that look at it.
    """

    rollout: Rollout
    scores: Sequence[float]
    ages: Sequence[float]
    items: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Rollouts:
    """Prompts with sampled responses.

    Attributes:
        rollout: B prompts and responses.
        scores: gives the reward's B numbers; call it after all work that does not need them.
        items: each prompt's row of the data.
        past: responses of earlier policies that the memory replays; None replays nothing.
        weights: (B,) by which each response's loss counts; None is 1 everywhere.
    """

    rollout: Rollout
    scores: Callable[[], Sequence[float]]
    items: Items | None = None
    past: Replayed | None = None
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rollout)

    def rows(self, index: slice) -> Rollouts:
        """Some of the rows; past responses stay with the whole."""
        import torch

        numbers = torch.arange(len(self))[index]
        return replace(
            self,
            rollout=self.rollout.rows(numbers.to(self.rollout.response_ids.device)),
            scores=lambda: self.scores()[index],
            items=None if self.items is None else self.items[index],
            past=None,
            weights=None if self.weights is None else self.weights[index],
        )


@dataclass(frozen=True)
class Pairs:
    """Of each prompt, the response with the highest score and that with the lowest.

    Attributes:
        chosen: N prompts and their best responses.
        rejected: the same prompts with their worst ones.
        margins: (N,) how much better the chosen scored; 0 where all scores are equal.
    """

    chosen: Rollout
    rejected: Rollout
    margins: Tensor

    def __len__(self) -> int:
        return len(self.margins)

    def rows(self, index: slice) -> Pairs:
        """Some of the rows."""
        import torch

        numbers = torch.arange(len(self), device=self.chosen.response_ids.device)[index]
        return Pairs(self.chosen.rows(numbers), self.rejected.rows(numbers), self.margins[index])


@dataclass(frozen=True)
class Batch:
    """What one step learns from; what the algorithm does not need is None."""

    examples: Examples | None = None
    rollouts: Rollouts | None = None
    pairs: Pairs | None = None

    def share(self, index: Callable[[int], slice]) -> tuple[Batch, float]:
        """The rows of each part that ``index`` gives for its size, and their share of all rows."""
        parts = {name: part for name, part in vars(self).items() if part is not None}
        own = {name: part.rows(index(len(part))) for name, part in parts.items()}
        return Batch(**own), sum(map(len, own.values())) / sum(map(len, parts.values()))


@dataclass(frozen=True)
class Outcome:
    """The result of one step.

    Attributes:
        stats: everything worth a curve, keys ``group/name``.
        losses: of each example, nats per token of its target before the step, NaN without a
            label; empty where no examples were needed.
        surprises: of each response, how wrong the critic was; empty without a critic.
    """

    stats: Stats
    losses: Sequence[float] = ()
    surprises: Sequence[float] = ()
