"""Progress of long loops on stderr: a bar on a terminal, a plain line every 10 seconds elsewhere.

Of several processes the main one alone shows it.

>>> bar = track(range(2), "ppo")
>>> for step in bar:
...     bar.figures(score=0.61, kl_nats=1.2)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mht.core.processes.launched import is_main_process

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

PLAIN_INTERVAL_S = 10.0

_live: list[Any] = []  # the terminal's one display and the loops in it, outermost first


def track(items: Iterable[T], description: str, total: int | None = None) -> Track[T]:
    """The same items, with progress shown while they are iterated.

    Args:
        items: what to loop over; loops may be nested.
        description: a word or two in front of the bar.
        total: number of items, where ``len(items)`` does not tell.
    """
    return Track(items, description, total)


class Track(Generic[T]):
    """A loop whose progress is shown; made by `track`.

    As a context manager instead of an iterator, `advance` moves it by hand.
    """

    def __init__(self, items: Iterable[T], description: str, total: int | None = None):
        self.items = items
        self.description = description
        self.total = len(items) if total is None and isinstance(items, Sized) else total
        self.done = 0
        self.text = ""

    def __iter__(self) -> Iterator[T]:
        with self:
            for item in self.items:
                yield item
                self.advance()

    def __enter__(self) -> Track[T]:
        self.done, self._began = 0, time.monotonic()
        self._display: _Bar | _Lines | _Nothing = _Nothing()
        if is_main_process():
            self._display = _Bar(self) if sys.stderr.isatty() else _Lines(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self._display.close()

    def advance(self, n: int = 1) -> None:
        """Count ``n`` more items as done."""
        self.done += n
        self._display.update()

    def figures(self, **figures: float) -> None:
        """Show these numbers beside the bar, until the next call."""
        self.text = " ".join(f"{name}={value:.3g}" for name, value in figures.items())
        self._display.update()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the loop began."""
        return time.monotonic() - self._began

    @property
    def remaining_s(self) -> float | None:
        """Seconds to go at the pace so far; None while nobody can tell."""
        if not self.total or not self.done:
            return None
        return self.elapsed_s * max(self.total - self.done, 0) / self.done


class _Nothing:
    def update(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Bar:
    """A line of the terminal's live display; nested loops share one display."""

    def __init__(self, loop: Track[Any]):
        self.loop = loop
        if not _live:
            _live.append(_start_display())
        _live.append(self)
        self.progress: Progress = _live[0]
        self.task = self.progress.add_task(loop.description, total=loop.total, text="")

    def update(self) -> None:
        self.progress.update(self.task, completed=self.loop.done, text=self.loop.text)

    def close(self) -> None:
        _live.remove(self)
        if len(_live) > 1:  # an inner loop leaves no trace
            self.progress.remove_task(self.task)
        else:
            self.progress.stop()
            _live.clear()


def _start_display() -> Progress:
    from rich import progress as rich
    from rich.console import Console

    display = rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=28),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("<"),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[text]}", markup=False),
        console=Console(stderr=True),
        speed_estimate_period=300,
    )
    display.start()
    return display


class _Lines:
    """Plain lines, for logs: one per interval, and one at the end of a loop worth a line."""

    def __init__(self, loop: Track[Any]):
        self.loop = loop
        self.printed_s = 0.0
        self.printed_items = -1
        self.outermost = not _live
        _live.append(self)

    def update(self) -> None:
        if self.loop.elapsed_s - self.printed_s >= PLAIN_INTERVAL_S:
            self._print()

    def close(self) -> None:
        _live.remove(self)
        worth_a_line = self.outermost or self.printed_s > 0
        if worth_a_line and self.printed_items != self.loop.done:
            self._print()

    def _print(self) -> None:
        self.printed_s, self.printed_items = self.loop.elapsed_s, self.loop.done
        print(plain_line(self.loop), file=sys.stderr, flush=True)


def plain_line(loop: Track[Any]) -> str:
    """One line such as ``ppo 12/30 (1:02, 1:33 left) score=0.61``."""
    count = f"{loop.done}/{loop.total}" if loop.total is not None else str(loop.done)
    left = loop.remaining_s
    clock = _clock(loop.elapsed_s) + (f", {_clock(left)} left" if left else "")
    return f"{loop.description} {count} ({clock}) {loop.text}".rstrip()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
