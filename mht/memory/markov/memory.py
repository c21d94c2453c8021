"""Markov memory: practice moves between states along a chain learned from its rewards."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from zlib import compress, decompress

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mht.core.bounds import Fraction, Positive, Share, Weight
from mht.core.component import Section
from mht.core.errors import ConfigError
from mht.memory.base import Memory, Rows, memory
from mht.memory.difficulty import CLASSES
from mht.memory.markov.chain import Chain
from mht.memory.markov.clusters import cluster
from mht.memory.markov.transitions import write_transitions
from mht.memory.store import Attempt

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_PROMPTS = 20_000  # as states: with 32 transitions each they take 8 MB
FEW = 1_000  # states, for which the stationary distribution costs a few milliseconds


class MarkovOptions(Section):
    """A Markov chain over states of practice, along which each row of a batch moves.

    Attributes:
        states: "clusters": classes of difficulty x groups of prompts with similar meaning; "rows":
            the different prompts, at most 20,000 of them.
        clusters: maximum number of groups of prompts, each with its three classes of difficulty.
        alpha: of the update ``alpha * (reward + gamma * next_reward)``. It scales all transitions
            by the same factor and changes no probability.
        gamma: weight of the next state's reward relative to the state's own.
        decay: factor of every transition's weight at each PPO step.
        exploration: share of the moves that are uniform over all states.
        out_degree: maximum number of transitions of a state; the lightest is removed first.
        signal: the reward of practising a state. With "score" it is the response's score. With
            "regret" it is the distance from the best remembered score, scaled to [0, 1] with 1 for
            the worst. With "progress" it is the gain over the prompt's mean so far.
        exponent: a prompt of a state is drawn with weight ``(1 / place) ** exponent``, place 1 the
            hardest of all; 0 is uniform.
    """

    states: Literal["clusters", "rows"] = "clusters"
    clusters: Annotated[int, Field(ge=1, le=1000)] = 8
    alpha: Fraction = 0.1
    gamma: Share = 0.9
    decay: Fraction = 0.9
    exploration: Share = 0.1
    out_degree: Positive = 32
    signal: Literal["score", "regret", "progress"] = "regret"
    exponent: Weight = 0.7


@memory("markov")
class MarkovMemory(Memory):
    """Chooses states of practice by a Markov chain, and prompts within them by difficulty.

    Place i of the batch is a lane. At each PPO step it moves from the state that it practised to
    another one, and the transition between them gains ``alpha * (signal + gamma * next_signal)``.
    The chain moves the lanes that the memory fills. The order of the data moves the lanes with
    fresh data. The chain learns from both.

    The signal decides which prompts are practised. The score leads the chain back to prompts that
    the policy already solves, which teaches it little. Regret, the distance from the best score,
    leads to prompts with the most to gain (PAIRED, Dennis et al. 2020, arXiv:2012.02096). It also
    leads to prompts that can't be learned. Progress leads to prompts whose scores rise (Graves et
    al. 2017, arXiv:1704.03003). One response measures it poorly, as noise in the scores looks like
    progress.

    Args:
        rows: the training data.
        options: those of this kind.
        embeddings: (rows, D) of the rows' prompts, for ``states`` "clusters".
        seed: of the clusters.
        common: the options of `Memory`.

    Attributes:
        chain: over the states.

    Raises:
        ConfigError: too many different prompts for a state each.
        ValueError: clusters without embeddings.
    """

    Options: ClassVar[type[Section]] = MarkovOptions
    options: MarkovOptions

    def __init__(
        self,
        rows: Rows,
        options: MarkovOptions,
        *,
        embeddings: NDArray[Any] | None = None,
        seed: int = 0,
        **common: Any,
    ):
        super().__init__(rows, options, **common)
        self.by_class = self.needs_embeddings(options)
        if self.by_class:
            if embeddings is None:
                raise ValueError("clusters of prompts need their embeddings")
            self._group, typical = cluster(embeddings[rows.first], options.clusters, seed=seed)
            self._typical = rows.first[typical]
        else:
            first = self._typical = rows.first
            self._group = np.arange(len(first))
            if len(first) > MOST_PROMPTS:
                raise ConfigError([
                    f"memory.markov.states: rows: the training data has {len(first)} different "
                    f"prompts, and at most {MOST_PROMPTS} can be states: set clusters"
                ])  # fmt: skip
        count = len(self._typical) * (len(CLASSES) if self.by_class else 1)
        self.chain = Chain(
            count,
            alpha=options.alpha,
            gamma=options.gamma,
            decay=options.decay,
            exploration=options.exploration,
            out_degree=options.out_degree,
        )
        self._lanes, self._signals = np.zeros(0, np.int64), np.zeros(0)

    @classmethod
    def needs_embeddings(cls, options: Section) -> bool:
        """Whether the states are clusters of prompts."""
        return isinstance(options, MarkovOptions) and options.states == "clusters"

    @property
    def nbytes(self) -> int:
        """Bytes of the memory without the training data."""
        arrays = [self._group, self._typical, self._lanes, self._signals]
        return super().nbytes + self.chain.nbytes + sum(array.nbytes for array in arrays)

    def states_of(self, prompts: Ints) -> Ints:
        """(n,) the current states of the prompts."""
        groups = self._group[prompts]
        return groups * len(CLASSES) + self.classes[prompts] if self.by_class else groups

    # -- what happened ----------------------------------------------------------------------

    def remember(self, attempts: Sequence[Attempt]) -> None:
        """Record the attempts of one PPO step, in the batch's order, and move the lanes."""
        if not attempts:
            return
        prompts = self.rows.numbers[[attempt.row for attempt in attempts]]
        scores = np.array([attempt.score for attempt in attempts])
        states, signals = self.states_of(prompts), scores
        if self.options.signal == "progress":  # against what was known before
            signals = np.nan_to_num(scores - self.records["mean_score"][prompts])
        super().remember(attempts)
        if self.options.signal == "regret":
            signals = self._regret(scores)
        both = min(len(states), len(self._lanes))
        if both:
            self.chain.update(
                self._lanes[:both], states[:both], self._signals[:both], signals[:both]
            )
        self._lanes, self._signals = states, signals

    def _regret(self, scores: Floats) -> Floats:
        """0 for the best remembered score, 1 for the worst; 0 if all are equal."""
        columns = self.store.columns
        kept = columns["score"][columns["order"] >= 0]
        best, worst = max(kept.max(), scores.max()), min(kept.min(), scores.min())
        return (best - scores) / (best - worst) if best > worst else np.zeros(len(scores))

    # -- what to do -------------------------------------------------------------------------

    def choose(self, n: int, generator: np.random.Generator) -> list[int]:
        """Rows (n,) of remembered prompts, one for each lane; none if no prompt is remembered.

        A lane begins at the state of a remembered prompt. If the chain leads to a state without
        one, the lane jumps to a uniformly drawn state that has one. Lanes in the same state get
        different prompts while there are any, then different rows of the same prompts.
        """
        known = self.known
        if not len(known):
            return []
        lanes = self._lanes
        if not len(lanes):
            lanes = self.states_of(known[generator.integers(len(known), size=n)])
        wanted = self.chain.sample(np.resize(lanes, n), generator)
        prompts = self._prompts_in(wanted, known, generator)
        return self.rows.draw(prompts, generator).tolist()

    def _prompts_in(self, wanted: Ints, known: Ints, generator: np.random.Generator) -> Ints:
        states = self.states_of(known)
        order = np.argsort(states.astype(np.uint16), kind="stable")  # of 16 bits numpy sorts fast
        sizes = np.bincount(states, minlength=self.chain.states)
        starts = sizes.cumsum() - sizes
        there = np.flatnonzero(sizes)
        elsewhere = there[generator.integers(len(there), size=len(wanted))]
        wanted = np.where(sizes[wanted] > 0, wanted, elsewhere)
        chosen = known[order[starts[wanted]]]
        for state in np.unique(wanted[sizes[wanted] > 1]).tolist():
            members = known[order[starts[state] : starts[state] + sizes[state]]]
            lanes = np.flatnonzero(wanted == state)
            chosen[lanes] = self._drawn(members, len(lanes), len(known), generator)
        return chosen

    def _drawn(self, prompts: Ints, n: int, known: int, generator: np.random.Generator) -> Ints:
        """(n,) of the prompts, drawn by their places; a prompt repeats only after all others.

        The exponential keys of `adaptive.draw`.
        """
        places = (1 - self.difficulty[prompts]) * known + 0.5  # 1 is the hardest
        keys = generator.standard_exponential(len(prompts)) * places**self.options.exponent
        first = np.argpartition(keys, n)[:n] if n < len(prompts) else np.arange(len(prompts))
        return np.resize(prompts[first], n)

    # -- what it is like --------------------------------------------------------------------

    def statistics(self) -> dict[str, float]:
        """The figures of every memory, and those of the chain.

        ``transitions`` is the number of transitions. With at most 1,000 states there are also
        ``entropy_nats``, the entropy of a move, and ``stationary_easy``, ``stationary_medium`` and
        ``stationary_hard``. These are the shares of the stationary distribution in each class.
        """
        found = super().statistics() | {"transitions": float(self.chain.transitions)}
        if self.chain.states > FEW:
            return found
        stationary = self.chain.stationary(tolerance=1e-6, iterations=500)
        of_each = self._by_class(stationary)
        found |= {f"stationary_{name}": float(of_each[i]) for i, name in enumerate(CLASSES)}
        return found | {"entropy_nats": self.chain.entropy(stationary)}

    def _by_class(self, stationary: Floats) -> Floats:
        """(classes,) mass of a distribution over the states with remembered prompts."""
        known = self.known
        states = self.states_of(known)
        sizes = np.bincount(states, minlength=self.chain.states)
        mass = np.bincount(
            self.classes[known], (stationary / np.maximum(sizes, 1))[states], minlength=len(CLASSES)
        )
        return mass / max(mass.sum(), 1e-300)

    def report(self, tables: Path, plots: Path) -> None:
        """Write the current chain."""
        known = np.bincount(self.states_of(self.known), minlength=self.chain.states)
        write_transitions(self.chain, self.state_names(), known.tolist(), tables, plots)

    def state_names(self) -> list[str]:
        """The name of each state: its prompt, or its class and its cluster's central prompt."""
        prompts = [self.rows.prompts[row] for row in self._typical.tolist()]
        if not self.by_class:
            return prompts
        return [f"{name}: {prompt}" for prompt in prompts for name in CLASSES]

    # -- what lasts ---------------------------------------------------------------------------

    def own_state(self) -> dict[str, Any]:
        """The chain, the lanes, and the clusters, as another machine may round to others."""
        arrays = {"lanes": self._lanes, "signals": self._signals}
        arrays |= {"group": self._group, "typical": self._typical}
        packed = {name: _packed(array) for name, array in arrays.items()}
        chain = self.chain.state_dict()
        return packed | {
            "chain": {k: v if k == "scale" else _packed(v) for k, v in chain.items()},
        }

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `own_state` returned."""
        chain = state["chain"]
        self.chain.load_state_dict(
            {k: v if k == "scale" else _unpacked(v) for k, v in chain.items()}
        )
        self._lanes, self._signals = _unpacked(state["lanes"]), _unpacked(state["signals"])
        self._group, self._typical = _unpacked(state["group"]), _unpacked(state["typical"])


def _packed(array: NDArray[Any]) -> dict[str, Any]:
    """An array as plain data, exact and shorter than a list of its numbers."""
    data = b64encode(compress(array.tobytes(), 1)).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "zlib_base64": data}


def _unpacked(packed: Mapping[str, Any]) -> NDArray[Any]:
    data = decompress(b64decode(packed["zlib_base64"]))
    return np.frombuffer(data, packed["dtype"]).reshape(packed["shape"]).copy()
