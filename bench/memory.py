"""What a memory costs: milliseconds of each call and bytes, with as many responses as it keeps.

python -m bench.memory                          # 20,000 responses of 30 tokens
python -m bench.memory --type adaptive --entries 5000 --tokens 100
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from mht.memory import Attempt, Memory, Rows, make_memory

STEPS = 30  # measured, after it is full


def rows_of(count: int, tokens: int) -> Rows:
    """Training data of that many rows, with prompts of that many tokens."""
    texts = [f"the prompt of row {i}" for i in range(count)]
    return Rows(texts, [" and its target"] * count, [[i] * tokens for i in range(count)])


def attempts_of(
    rows: Rows, batch: int, tokens: int, step: int, generator: np.random.Generator
) -> list[Attempt]:
    """A batch of random attempts."""
    picked = generator.integers(0, len(rows), batch).tolist()
    numbers = generator.random((batch, 2)).tolist()
    ids = generator.integers(0, 50_000, (batch, tokens)).tolist()
    return [
        Attempt(
            row=row,
            prompt=rows.prompts[row],
            response=f" a response of about {tokens} tokens" * max(tokens // 7, 1),
            target=rows.targets[row],
            prompt_ids=rows.prompt_ids[row],
            response_ids=ids[i],
            logprobs=[-0.5] * tokens,
            ended=True,
            score=numbers[i][0],
            loss=numbers[i][1],
            step=step,
        )
        for i, row in enumerate(picked)
    ]


def measure(
    kind: str, entries: int, tokens: int, batch: int, steps: int = STEPS
) -> tuple[Memory, dict[str, float]]:
    """A full memory of as many rows as responses, and the median milliseconds of each call.

    Milliseconds are of this process's own time, which other work on the machine has little part in.
    """
    generator = np.random.default_rng(0)
    rows = rows_of(entries, tokens)
    places = {"embeddings": generator.random((entries, 16))} if kind == "markov" else {}
    memory = make_memory(kind, rows, capacity=entries, **places)
    filled = -(-entries // batch) + 1
    taken: dict[str, list[float]] = {}
    for step in range(filled + steps):
        attempts = attempts_of(rows, batch, tokens, step, generator)
        losses = generator.random(batch // 4).tolist()
        calls: dict[str, Callable[[], object]] = {
            "remember": lambda attempts=attempts, **_: memory.remember(attempts),
            "choose": lambda **_: memory.choose(batch // 2, generator),
            "saw": lambda losses=losses, step=step, **_: memory.saw(
                range(len(losses)), losses, step
            ),
            "best": lambda **_: memory.best(batch // 4, generator, 0.9),
            "statistics": lambda **_: memory.statistics(),
        }
        for name, call in calls.items():
            began = time.process_time()
            call()
            if step >= filled:
                taken.setdefault(name, []).append(1000 * (time.process_time() - began))
    return memory, {name: median(times) for name, times in taken.items()}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--type", default="adaptive")
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--tokens", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    asked = parser.parse_args()
    memory, milliseconds = measure(asked.type, asked.entries, asked.tokens, asked.batch)
    figures = {f"{name}_ms": round(value, 3) for name, value in milliseconds.items()}
    print(json.dumps(vars(asked) | figures | {"megabytes": round(memory.nbytes / 1e6, 1)}))


if __name__ == "__main__":
    main()
