"""One side of a comparison: loads its model once, then does one measured round per line of input.

Runs in the environment of its library, so it imports nothing of this project but what it measures.
The protocol: a line in, "answer" and one JSON object out; the time of loading and warming up is
nobody's.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time


def peak_gb() -> float:
    """The most memory this process has had."""
    scale = 1e9 if sys.platform == "darwin" else 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def say(answer: dict) -> None:
    """One line that cannot be taken for something that a library prints."""
    print("answer", json.dumps(answer), flush=True)


def main() -> None:
    """Load the side's module and answer.

    The module has one function, ``prepare(settings)``: it loads, warms up, and returns a function
    that does one round and returns its figures, ``tokens`` among them; ``seconds`` too, where not
    all of the round counts.
    """
    side, settings = sys.argv[1], json.loads(sys.argv[2])
    sys.path.insert(0, "bench/sides")
    prepare = importlib.import_module(side).prepare
    once = prepare(settings)
    say({"ready": True})
    for _ in sys.stdin:
        began = time.perf_counter()
        figures = once()
        seconds = time.perf_counter() - began
        answer = {"seconds": seconds, "peak_gb": peak_gb(), **figures}
        say(answer)


if __name__ == "__main__":
    main()
