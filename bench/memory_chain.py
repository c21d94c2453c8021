"""What the Markov chain of mht/memory costs: ``python -m bench.memory_chain``.

Milliseconds of processor time for a PPO step's work on it (updates and draws of every lane) and for
what the curves and the report need, with every slot of every state filled.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from mht.memory.markov.chain import Chain


def filled(states: int, degree: int) -> Chain:
    """A chain that holds as many transitions as it can."""
    random = np.random.default_rng(0)
    chain = Chain(states, out_degree=degree)
    for _ in range(3 * degree):
        left = np.arange(states)
        chain.update(left, random.integers(0, states, states), random.random(states), left * 0.0)
    return chain


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Median processor time of one call."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return 1000 * statistics.median(times)


def main() -> None:
    """Print a line for each number of states."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, nargs="+", default=[48, 1000, 20_000])
    parser.add_argument("--lanes", type=int, default=256)
    parser.add_argument("--out-degree", type=int, default=32)
    args = parser.parse_args()
    for states in args.states:
        print(line(filled(states, args.out_degree), args.lanes), flush=True)


def line(chain: Chain, lanes: int) -> str:
    """The costs of one chain."""
    random = np.random.default_rng(1)

    def step() -> None:
        left = random.integers(0, chain.states, lanes)
        reached = chain.sample(left, random)
        chain.update(left, reached, random.random(lanes), random.random(lanes))

    found = chain.stationary()
    return (
        f"{chain.states:6} states, {chain.transitions} transitions, {chain.nbytes / 1e6:.1f} MB: "
        f"{lanes} updates and draws {milliseconds(step, 200):.2f} ms, "
        f"stationary {milliseconds(chain.stationary, 9):.1f} ms, "
        f"entropy {milliseconds(lambda: chain.entropy(found), 9):.1f} ms"
    )


if __name__ == "__main__":
    main()
