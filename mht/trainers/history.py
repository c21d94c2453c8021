"""What training said, step by step: to the tracker as it happens, to csv files at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mht.data.records import write_csv

Stats = Mapping[str, float]
PHASES = ("sft", "ppo", "validation")


class History:
    """Collects the figures of every step.

    Args:
        log: where each step's figures go at once, such as ``run.log``.
    """

    def __init__(self, log: Callable[[Stats, int], None]):
        self._log = log
        self.rows: list[tuple[int, dict[str, float]]] = []

    def __call__(self, stats: Stats, step: int) -> None:
        """Take in one step's figures; keys ``phase/group/name``."""
        if stats:
            self.rows.append((step, dict(stats)))
            self._log(stats, step)

    def last(self, phase: str, over: int = 1) -> dict[str, float]:
        """Means over the last rows of a phase, without times: what a stage's metrics file holds."""
        rows = [row for _, row in self._of(phase)][-over:]
        names = rows[0] if rows else ()
        return {name: sum(row[name] for row in rows) / len(rows) for name in names}

    def write(self, folder: str | Path) -> None:
        """One csv per phase that had steps: ``step`` and every figure that is not a time."""
        Path(folder).mkdir(parents=True, exist_ok=True)  # an output, also where nothing was said
        for phase in PHASES:
            rows = [{"step": step, **row} for step, row in self._of(phase)]
            if rows:
                write_csv(Path(folder) / f"{phase}.csv", rows)

    def _of(self, phase: str) -> list[tuple[int, dict[str, float]]]:
        """The phase's rows; times differ from run to run and are left out."""
        found = []
        for step, row in self.rows:
            own = {k: v for k, v in row.items() if k.startswith(f"{phase}/") and "/time/" not in k}
            if own:
                found.append((step, own))
        return found
