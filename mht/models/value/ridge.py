"""A critic that is fitted, not trained: ridge regression of returns on last hidden states.

A short PPO run has a few dozen optimiser steps. A gradient needs more to find the directions
that tell a good state from a bad one; least squares finds them at once. The values of a response
come from a fit to the other responses of its rollout, and to past ones. So, given the others, a
value depends on the state alone: a baseline that biases no gradient (Greensmith et al. 2004,
jmlr.org/papers/v5/greensmith04a.html). All of these fits come from one, by the hat matrix (Cook &
Weisberg 1982, section 3.2). Where a prompt's responses are compared with one another, their returns
depend on each other: then all of them are left out together.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from mht.models.value.heads import LinearHead


@dataclass(frozen=True)
class Moments:
    """Sums over N states of features x and targets y; all float64.

    Attributes:
        count: () N.
        x: (H,) sum of x.
        y: () sum of y.
        xx: (H, H) sum of the products of x with itself.
        xy: (H,) sum of x times y.
    """

    count: Tensor
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor

    @classmethod
    def of(cls, features: Tensor, targets: Tensor) -> Moments:
        """Of features (N, H) and targets (N,), any float dtype."""
        x, y = features.double(), targets.double()
        count = torch.tensor(float(len(y)), dtype=x.dtype, device=x.device)
        return cls(count, x.sum(0), y.sum(), x.T @ x, x.T @ y)

    def __add__(self, other: Moments) -> Moments:
        return Moments(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def scaled(self, share: float) -> Moments:
        """As if every state counted this much."""
        return Moments(*(share * value for value in astuple(self)))


@dataclass(frozen=True)
class Fit:
    """A ridge regression: ``y = bias + weight @ ((x - mean) * unit)``.

    Features are standardised first, and the bias is not shrunk (Hastie, Tibshirani & Friedman 2009,
    section 3.4.1). A feature that never varies counts for nothing.

    Attributes:
        mean: (H,) of the features.
        unit: (H,) 1 / standard deviation, or 0 where that is 0.
        weight: (H,) of standardised features.
        bias: () the mean of the targets.
        count: () states that it knows.
        factor: (H, H) Cholesky factor of the standardised features' products, plus the shrinkage.
    """

    mean: Tensor
    unit: Tensor
    weight: Tensor
    bias: Tensor
    count: Tensor
    factor: Tensor

    @classmethod
    def to(cls, known: Moments, shrinkage: float) -> Fit:
        """The fit to the moments.

        Args:
            known: of one state at least.
            shrinkage: states' worth of pull towards 0: with as many states, independent features
                keep half of their least-squares weights.

        >>> line = Moments.of(torch.tensor([[0.0], [2.0]]), torch.tensor([1.0, 5.0]))  # 1 + 2 x
        >>> [[round(float(v), 3) for v in Fit.to(line, s).line] for s in (1e-9, 2.0)]
        [[2.0, 1.0], [1.0, 2.0]]
        """
        mean, bias = known.x / known.count, known.y / known.count
        products = known.xx - known.count * torch.outer(mean, mean)
        spread = (products.diagonal() / known.count).clamp(min=0.0).sqrt()
        varies = spread > 1e-6 * (known.xx.diagonal() / known.count).sqrt().clamp(min=1e-12)
        unit = torch.where(varies, 1 / torch.where(varies, spread, 1.0), 0.0)
        system = products * torch.outer(unit, unit)
        system.diagonal().add_(shrinkage)
        factor = torch.linalg.cholesky(system)
        with_y = (known.xy - known.y * mean) * unit
        weight = torch.cholesky_solve(with_y[:, None], factor)[:, 0]
        return cls(mean, unit, weight, bias, known.count, factor)

    @property
    def line(self) -> tuple[Tensor, Tensor]:
        """Weight (H,) and bias () of features as they are."""
        weight = self.weight * self.unit
        return weight, self.bias - weight @ self.mean

    def without_own(self, features: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """What fits to all but one row say of that one's states.

        With H the row's block of the hat matrix and e its residuals, a fit without it errs by
        ``(1 - H)^-1 e``.

        Args:
            features: (B, R, H) float64, of rows that this is a fit to, among others.
            targets: (B, R) float64, of the same.
            mask: (B, R) True = a state.

        Returns:
            (B, R) float64; anything at padding.
        """
        own = mask[..., None].double()
        x = (features - self.mean) * self.unit * own
        half = torch.linalg.solve_triangular(self.factor, x.flatten(0, 1).T, upper=False)
        half = half.T.unflatten(0, mask.shape)
        hat = half @ half.mT + own @ own.mT / self.count
        errors = (targets - self.bias - x @ self.weight) * mask
        rest = torch.eye(mask.shape[1], dtype=x.dtype, device=x.device) - hat
        return targets - torch.linalg.solve(rest, errors)


class RidgeCritic:
    """The values of fresh rollouts, and the head that says them of other states.

    Args:
        head: is given the fit to all moments, after each rollout.
        shrinkage: see `Fit.to`.
        decay: what earlier rollouts count, with each that follows.

    Attributes:
        past: of all rollouts so far, older ones fading; None before the first.
    """

    def __init__(self, head: LinearHead, *, shrinkage: float, decay: float):
        self.head, self.shrinkage, self.decay = head, shrinkage, decay
        self.past: Moments | None = None

    @torch.no_grad()
    def values(
        self, hidden: Tensor, returns: Tensor, mask: Tensor, groups: Tensor | None = None
    ) -> Tensor:
        """Judge a rollout's states, then learn from them.

        Args:
            hidden: (B, R, H) last hidden states, of the state before each token.
            returns: (B, R) what followed, discounted.
            mask: (B, R) True = a real response token.
            groups: (B,) int64 from 0 on, of responses that are left out together; None is each by
                itself.

        Returns:
            (B, R) float32, 0 at padding. A group's own returns have no part in its values. A
            first rollout of one group has none to learn from: the head says its values.
        """
        features, targets = hidden.double(), returns.double()
        known = Moments.of(features[mask], targets[mask])
        if self.past is not None:
            known = known + self.past
        fit = Fit.to(known, self.shrinkage)
        rows, real = _members(torch.arange(len(mask), device=mask.device), groups)
        if len(rows) == 1 and self.past is None:
            values = self.head(hidden)
        else:
            own = mask[rows] & real[..., None]
            parts = (features[rows], targets[rows], own)
            others = fit.without_own(*(part.flatten(1, 2) for part in parts)).view(own.shape)
            values = torch.empty_like(targets).index_copy_(0, rows[real], others[real]).float()
        weight, bias = fit.line
        self.head.weight.copy_(weight[None])
        self.head.bias.copy_(bias[None])
        self.past = known.scaled(self.decay)
        return torch.where(mask, values, 0.0)

    def state_dict(self) -> dict[str, Tensor]:
        """What a resume needs: the head, and the past moments."""
        past = {} if self.past is None else vars(self.past)
        return {"weight": self.head.weight, "bias": self.head.bias, **past}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what `state_dict` gave."""
        device = self.head.weight.device
        self.head.weight.copy_(state["weight"])
        self.head.bias.copy_(state["bias"])
        past = {name: state[name].to(device) for name in Moments.__annotations__ if name in state}
        self.past = Moments(**past) if past else None


def _members(rows: Tensor, groups: Tensor | None) -> tuple[Tensor, Tensor]:
    """The rows (B,) by group, (G, size of the largest), and which of these are there, bool."""
    if groups is None:
        return rows[:, None], torch.ones_like(rows, dtype=torch.bool)[:, None]
    sizes = groups.bincount()
    places = torch.arange(int(sizes.max()), device=rows.device)
    first = (sizes.cumsum(0) - sizes)[:, None]
    in_order = groups.argsort(stable=True)
    return in_order[(first + places).clamp(max=len(rows) - 1)], places < sizes[:, None]
