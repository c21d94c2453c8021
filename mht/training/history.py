"""The figures of each training step: at once for the tracker, at the end for csv files."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mht.core.stable_files import write_csv

Stats = Mapping[str, float]


class Row(NamedTuple):
    """One step's figures; ``at_ms`` since the epoch."""

    step: int
    at_ms: int
    stats: dict[str, float]


class History:
    """Collects the figures of every step.

    Args:
        log: takes each step's figures, the step and the time in milliseconds, such as ``run.log``.
        hold: figures wait for `publish`: with checkpoints the tracker never hears of a step that a
            killed run would have to make again.
    """

    def __init__(self, log: Callable[[Stats, int, int], None], *, hold: bool = False):
        self._log, self._hold = log, hold
        self._published = 0
        self.rows: list[Row] = []

    def __call__(self, stats: Stats, step: int) -> None:
        """Take in one step's figures; keys ``phase/group/name``."""
        if stats:
            self.rows.append(Row(step, round(time.time() * 1000), dict(stats)))
            if not self._hold:
                self.publish()

    def publish(self) -> None:
        """Hand on what has not been handed on yet."""
        for row in self.rows[self._published :]:
            self._log(row.stats, row.step, row.at_ms)
        self._published = len(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """All rows."""
        return {"rows": [list(row) for row in self.rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave; all of it is published again, with its old times.

        A tracker that has a point already takes it for the same one.
        """
        self.rows = [Row(step, at_ms, dict(stats)) for step, at_ms, stats in state["rows"]]
        self._published = 0

    def last(self, phase: str, over: int = 1) -> dict[str, float]:
        """Means over the last rows of a phase, without times: what a stage's metrics file holds."""
        rows = [row for _, row in self._of(phase)][-over:]
        names = rows[0] if rows else ()
        return {name: sum(row[name] for row in rows) / len(rows) for name in names}

    def final(self) -> dict[str, float]:
        """The last figures of all phases: means over five rows, of validation the last look's."""
        found: dict[str, float] = {}
        for phase in self.phases:
            found |= self.last(phase, over=1 if phase == "validation" else 5)
        return found

    def write(self, folder: str | Path) -> None:
        """A csv file for each phase: ``step`` and every figure that is not a time."""
        Path(folder).mkdir(parents=True, exist_ok=True)  # an output, also without figures
        for phase in self.phases:
            rows = [{"step": step, **row} for step, row in self._of(phase)]
            write_csv(Path(folder) / f"{phase}.csv", rows)

    @property
    def phases(self) -> list[str]:
        """The names that keys begin with: of algorithms, and "validation"."""
        names = (key.partition("/")[0] for row in self.rows for key in row.stats)
        return sorted(set(names))

    def _of(self, phase: str) -> list[tuple[int, dict[str, float]]]:
        """The phase's rows; times differ from run to run and are left out."""
        found = []
        for step, _, row in self.rows:
            own = {k: v for k, v in row.items() if k.startswith(f"{phase}/") and "/time/" not in k}
            if own:
                found.append((step, own))
        return found
