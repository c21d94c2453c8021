"""A search in the store: a run for the search, a child for each trial with values and curves.

A search that goes on finds its runs by their tags. A trial's curves are sent at its end, with the
times of their points. A search that was killed in between sends them again: points of the same time
are the same points.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from mht.tracking import names
from mht.tracking.run import Soft
from mht.tracking.session import process_id
from mht.tracking.store import Point, Store, open_store

STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


class SearchRun:
    """The MLflow run of one search, which goes on where the store refuses something.

    Args:
        experiment: MLflow's experiment.
        name: the search's.
        identity: a name that no other search has.
        params: its settings, nested.
    """

    def __init__(self, experiment: str, name: str, identity: str, params: Mapping[str, Any]):
        self.soft, self.identity = Soft(), identity
        self.id: str | None = None
        self._store: Store | None = None
        with self.soft("open the store"):
            self._store = store = open_store(experiment)
            store.reap()
            tags = {"mht.kind": "search", "mht.search": identity, "mlflow.source.name": "mht tune"}
            self.id = self._begin(store, f"tune-{name}", tags, None, params)

    def begin(self, number: int, values: Mapping[str, Any]) -> str | None:
        """Open a trial's run, anew or again; its id."""
        with self.soft("begin a trial"):
            if self._store and self.id:
                name = f"trial-{number}"
                return self._begin(self._store, name, self._tags(number), self.id, values)
        return None

    def publish(
        self, number: int, points: Sequence[Sequence[Any]], outcome: str, tags: Mapping[str, str]
    ) -> bool:
        """Send a trial's curves and end its run; whether the store took it.

        Args:
            number: the trial's.
            points: of (key, value, milliseconds since the epoch, step).
            outcome: complete, pruned or failed.
            tags: more facts about it.
        """
        with self.soft("log a trial"):
            run = self._store.find(self._tags(number)) if self._store else None
            if self._store and run:
                clean = [Point(names.clean(k), v, int(ms), int(step)) for k, v, ms, step in points]
                own = {"mht.outcome": outcome, **tags}
                self._store.log(run.id, points=clean, tags=own)
                self._store.set_status(run.id, STATUS[outcome])
                return True
        return False

    def best(self, points: Sequence[Point], values: Mapping[str, Any]) -> None:
        """On the search's own run: the best value after each trial, and what gave the best."""
        with self.soft("log the best trial"):
            if self._store and self.id:
                tags = {f"mht.best.{k}": v for k, v in names.flat_params(dict(values)).items()}
                self._store.log(self.id, points=points, tags=tags)

    def close(self, status: str) -> None:
        """End the search's run: FINISHED, FAILED or KILLED."""
        with self.soft("close the search"):
            if self._store and self.id:
                self._store.set_status(self.id, status)

    def _tags(self, number: int) -> dict[str, str]:
        return {"mht.kind": "trial", "mht.search": self.identity, "mht.trial": str(number)}

    def _begin(
        self,
        store: Store,
        name: str,
        tags: Mapping[str, str],
        parent: str | None,
        params: Mapping[str, Any],
    ) -> str:
        known = store.find(tags)
        running = {"mht.process": process_id()}
        if known:
            store.set_status(known.id, "RUNNING")
            store.log(known.id, tags=running)
            return known.id
        run_id = store.create_run(name, {**tags, **running}, parent)
        store.log(run_id, params=names.flat_params(params))
        return run_id


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return round(time.time() * 1000)
