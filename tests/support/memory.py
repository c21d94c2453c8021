"""Memories and attempts for the tests of memory."""

from mht.memory import Attempt, Rows, make_memory

IDENTITY = {"tokenizer": "abc", "temperature": 0.7, "reward": {"type": "length_window", "max": 3}}


def memory_of(count=6, **options):
    rows = Rows([f"p{i}" for i in range(count)], ["t"] * count, [[i] for i in range(count)])
    return make_memory("adaptive", rows, **options)


def attempt(row, score, loss=1.0, step=0, **changes):
    values = {
        "prompt": f"p{row}", "response": f"r{row}", "target": "t", "prompt_ids": [row],
        "response_ids": [7, 2], "logprobs": [-0.5, -0.25], "ended": True,
    }  # fmt: skip
    return Attempt(row=row, score=score, loss=loss, step=step, **values | changes)


def shared(prompts, **options):
    """A memory of rows with these prompts."""
    texts, ids = [f"p{p}" for p in prompts], [[p] for p in prompts]
    return make_memory("adaptive", Rows(texts, ["t"] * len(prompts), ids), **options)


def practised_memory(**options):
    memory = memory_of(capacity=5, **options)
    for step in range(4):
        rows = [step, step + 1]
        memory.remember([attempt(r, (r * 7 % 5) / 5, loss=r / 3, step=step) for r in rows])
        memory.saw([5 - step], [step / 2], step)
    return memory
