"""A sparse, bounded Markov chain over integer states, which learns its transitions from rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

EMPTY = -1  # in a slot that leads nowhere; its weight is 0
SMALLEST_SCALE = 1e-100  # of the lazy decay; below it the stored weights take it up

Numbers = Sequence[float] | NDArray[Any]


class Chain:
    """Weights ``w(from, to) >= 0``; a row divided by its sum has its transition probabilities.

    A step from a state to another adds ``alpha * (reward + gamma * next_reward)`` to its weight. A
    negative gain lowers a weight to 0 at most, and a transition of weight 0 is removed. So losses
    below 0 are not carried over. A state without a transition leads to every state with the same
    probability.

    Each state keeps its ``out_degree`` heaviest transitions, at 12 bytes each. A full row takes a
    new transition only if its gain exceeds the row's lowest weight, which it replaces.

    Decay multiplies all weights by one shared factor, in O(1). It changes no probability, but old
    experience counts less than later steps.

    Args:
        states: number of states, 0 to ``states - 1``.
        alpha: factor of every gain.
        gamma: weight of the next state's reward.
        decay: factor by which every update first multiplies all weights.
        exploration: share of `sample`'s draws that are uniform over all states.
        out_degree: maximum number of transitions of a state.

    Raises:
        ValueError: no state, or a number outside its range.
    """

    def __init__(
        self,
        states: int,
        *,
        alpha: float = 0.1,
        gamma: float = 0.9,
        decay: float = 0.99,
        exploration: float = 0.1,
        out_degree: int = 32,
    ):
        if states < 1 or out_degree < 1 or alpha <= 0 or not 0 <= gamma <= 1:
            raise ValueError("a chain needs states, out_degree and alpha above 0, gamma in [0, 1]")
        if not 0 < decay <= 1 or not 0 <= exploration <= 1:
            raise ValueError("a chain needs a decay in (0, 1] and an exploration in [0, 1]")
        self.states, self.alpha, self.gamma = states, alpha, gamma
        self.decay, self.exploration = decay, exploration
        width = min(out_degree, states)
        self._to: NDArray[np.int32] = np.full((states, width), EMPTY, dtype=np.int32)
        self._weight: NDArray[np.float64] = np.zeros((states, width))
        self._scale = 1.0  # times _weight is what a transition weighs

    @property
    def transitions(self) -> int:
        """The number of transitions."""
        return int((self._to != EMPTY).sum())

    @property
    def nbytes(self) -> int:
        """Memory of the transitions, in bytes."""
        return self._to.nbytes + self._weight.nbytes

    # -- learning ---------------------------------------------------------------------------

    def update(
        self,
        states: Sequence[int] | NDArray[Any],
        next_states: Sequence[int] | NDArray[Any],
        rewards: Numbers,
        next_rewards: Numbers,
    ) -> None:
        """Apply the decay once, then add steps that were made at the same time.

        The gains of a transition that occurs several times are added before the clip at 0.

        Args:
            states: (B,) before the step.
            next_states: (B,) after the step.
            rewards: (B,) of ``states``.
            next_rewards: (B,) of ``next_states``.
        """
        self.fade(self.decay)
        gains = self.alpha * (np.asarray(rewards) + self.gamma * np.asarray(next_rewards))
        keys = np.asarray(states, dtype=np.int64) * self.states + np.asarray(next_states)
        keys, which = np.unique(keys, return_inverse=True)
        gains = np.bincount(which, weights=gains, minlength=len(keys)) / self._scale
        rows, to = keys // self.states, keys % self.states
        same = self._to[rows] == to[:, None]
        known, slots = same.any(axis=1), same.argmax(axis=1)
        self._add(rows[known], slots[known], gains[known])
        new = ~known & (gains > 0)
        for row, state, gain in zip(rows[new], to[new], gains[new], strict=True):
            slot = self._weight[row].argmin()  # an empty one where there is one
            if gain > self._weight[row, slot]:
                self._to[row, slot], self._weight[row, slot] = state, gain

    def _add(self, rows: NDArray[Any], slots: NDArray[Any], gains: NDArray[np.float64]) -> None:
        weights = np.maximum(self._weight[rows, slots] + gains, 0.0)
        self._weight[rows, slots] = weights
        gone = weights == 0
        self._to[rows[gone], slots[gone]] = EMPTY

    def fade(self, factor: float) -> None:
        """Multiply every weight by a factor in (0, 1], in O(1)."""
        self._scale *= factor
        if self._scale < SMALLEST_SCALE:
            self._weight *= self._scale
            self._to[self._weight == 0] = EMPTY
            self._scale = 1.0

    # -- what it says -----------------------------------------------------------------------

    def next_state(self, state: int) -> int | None:
        """The target of the heaviest transition; None if the state has no transition."""
        slot = self._weight[state].argmax()
        return int(self._to[state, slot]) if self._weight[state, slot] > 0 else None

    def transition_probabilities(self, state: int) -> NDArray[np.float64]:
        """(S,) probabilities of the next states, without exploration; they add up to 1."""
        kept = self._to[state] != EMPTY
        if not kept.any():
            return np.full(self.states, 1 / self.states)
        found = np.zeros(self.states)
        found[self._to[state, kept]] = _shares(self._weight[[state]])[0, kept]
        return found

    def matrix(self) -> csr_array:
        """(S, S) sparse probabilities, without exploration.

        A row adds up to 1. It is empty if the state has no transition, and then leads to every
        state with the same probability.
        """
        from scipy.sparse import csr_array

        kept = self._to != EMPTY
        starts = np.concatenate([[0], kept.sum(axis=1).cumsum()])
        filled = (_shares(self._weight)[kept], self._to[kept], starts)
        return csr_array(filled, shape=(self.states, self.states))

    def sample(
        self, states: Sequence[int] | NDArray[Any], generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw a next state for each state.

        Args:
            states: (B,) of the lanes.
            generator: of the random numbers, always three for each lane.

        Returns:
            (B,) next states.
        """
        explore, anywhere, where = generator.random((3, len(states)))
        rows = np.asarray(states, dtype=np.int64)
        sums = self._weight[rows].cumsum(axis=1)
        total = sums[:, -1]
        place = np.minimum(where * total, np.nextafter(total, 0))  # a product may round up to it
        slots = (sums > place[:, None]).argmax(axis=1)
        anyone = np.minimum((anywhere * self.states).astype(np.int64), self.states - 1)
        free = (explore < self.exploration) | (total == 0)
        return np.where(free, anyone, self._to[rows, slots].astype(np.int64))

    def stationary(
        self, restart: float | None = None, *, tolerance: float = 1e-10, iterations: int = 10_000
    ) -> NDArray[np.float64]:
        """(S,) the stationary distribution, by power iteration.

        With probability ``restart`` a step goes to a uniformly drawn state, as in PageRank (Brin &
        Page 1998, doi:10.1016/S0169-7552(98)00110-X). From a state without a transition it always
        does. So the distribution is unique, even with several closed classes (sets of states that
        no transition leaves). With a restart of 0 and several closed classes it is not unique. The
        result is then the limit from a uniform start.

        Args:
            restart: None takes ``exploration``, which gives the distribution of `sample`'s draws.
            tolerance: the iteration ends once it moves at most this mass.
            iterations: maximum number of iterations.
        """
        restart = self.exploration if restart is None else restart
        matrix = self.matrix()
        empty = np.diff(matrix.indptr) == 0
        into = matrix.T.tocsr()
        lazy = 0.0 if restart > 0 else 0.5  # staying now and then: else a cycle never settles
        found = np.full(self.states, 1 / self.states)
        for _ in range(iterations):
            flow = into @ found + found[empty].sum() / self.states
            after = lazy * found + (1 - lazy) * ((1 - restart) * flow + restart / self.states)
            moved = np.abs(after - found).sum()
            found = after
            if moved < tolerance:
                break
        return found / found.sum()

    def entropy(self, weights: Numbers) -> float:
        """The weighted mean of the rows' entropies, in nats per step.

        With the stationary distribution this is the chain's entropy rate. A state without a
        transition has the entropy of the uniform distribution.

        Args:
            weights: (S,) that add up to 1.
        """
        from scipy.special import entr

        shares = _shares(self._weight)
        nats = entr(shares).sum(axis=1)
        known = shares.any(axis=1)
        return float(np.asarray(weights) @ np.where(known, nats, np.log(self.states)))

    # -- state ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state: two arrays and a number."""
        return {"to": self._to.copy(), "weight": self._weight.copy(), "scale": self._scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, bit by bit.

        Raises:
            ValueError: the state is of a chain with another number of states or out-degree.
        """
        to, weight = state["to"].copy(), state["weight"].copy()
        if to.shape != self._to.shape or weight.shape != to.shape:
            raise ValueError(f"a chain of {self._to.shape} slots was given {to.shape}")
        self._to, self._weight, self._scale = to, weight, float(state["scale"])


def _shares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows divided by their sums, safe for tiny and huge weights; a row of zeros stays."""
    scaled = weights / np.where((top := weights.max(axis=1, keepdims=True)) > 0, top, 1.0)
    sums = scaled.sum(axis=1, keepdims=True)
    return np.asarray(scaled / np.where(sums > 0, sums, 1.0))
