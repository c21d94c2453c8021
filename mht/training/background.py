"""Work beside what the calling thread has a GPU do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")


@contextmanager
def background(
    compute: Callable[[], T], device: torch.device
) -> Iterator[Callable[[], tuple[T, float]]]:
    """Begin ``compute`` at once; the block gets what waits for its result, or raises its error.

    The result comes with the seconds that it took. The block ends no sooner than ``compute``, also
    when the block fails. On a CPU ``compute`` begins when its result is needed, as both would use
    the same cores. A second thread there makes every product of the first one wait longer for its
    helpers.

    Args:
        compute: draws no random numbers that the block draws too.
        device: where the block computes; a new thread would take the first GPU.
    """

    def timed() -> tuple[T, float]:
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
        began = time.perf_counter()
        return compute(), time.perf_counter() - began

    if device.type == "cpu":
        yield cache(timed)
    else:
        with ThreadPoolExecutor(1) as pool:
            yield pool.submit(timed).result
