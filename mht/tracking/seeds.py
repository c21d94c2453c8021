"""A benchmark over seeds in the store: one run above, below it one for each variant and seed.

Runs are found again by what they rest on, so a benchmark that goes on after a kill adds none twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mht.tracking import names
from mht.tracking.record import to_points
from mht.tracking.run import Soft
from mht.tracking.session import Terminated, process_id
from mht.tracking.store import Point, Store, open_store

COSTS = ("optimizer_steps", "sampled_tokens", "seconds", "cpu_seconds")


class SeedsRun:
    """The runs of one benchmark over seeds; what the store refuses is one warning.

    Args:
        name: of the benchmark, such as that of its folder.
        params: the experiment's settings, nested.
        experiment: MLflow's experiment.
    """

    def __init__(self, name: str, params: Mapping[str, Any], experiment: str):
        self._soft = Soft()
        self._opened: set[str] = set()
        self._store: Store | None = None
        self.id: str | None = None
        self._params = names.flat_params({k: v for k, v in params.items() if k != "benchmark"})
        tags = {"mht.kind": "seeds", "mht.seeds": key_of([name, self._params])}
        with self._soft("open the store"):
            store = open_store(experiment)
            store.reap()
            self.id = self._open(store, f"seeds-{name}", tags, self._params)
            self._store = store

    def __enter__(self) -> SeedsRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """End what is open: FINISHED, FAILED after an error, KILLED after ctrl-C."""
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt | Terminated)
        status = "FINISHED" if kind is None else "KILLED" if stopped else "FAILED"
        with self._soft("close the runs"):
            for run_id in self._opened:
                if self._store:
                    self._store.set_status(run_id, status)
            self._opened.clear()

    def begin(self, variant: str, seed: int, rests_on: Mapping[str, str]) -> None:
        """A variant is trained now."""
        with self._soft("begin a run"):
            if self._store and self.id:
                self._child(self._store, variant, seed, rests_on)

    def finish(
        self,
        variant: str,
        seed: int,
        rests_on: Mapping[str, str],
        *,
        params: Mapping[str, Any],
        result: Mapping[str, Any],
        metrics: Mapping[str, float],
        samples: Path,
    ) -> None:
        """Log all of a variant's result, unless the store has it.

        Args:
            variant: its name.
            seed: the training seed.
            rests_on: what it rests on; another result is another run.
            params: the settings of its training, nested.
            result: with ``budget`` and ``curve``.
            metrics: final figures.
            samples: the file of its responses.
        """
        with self._soft("log a result"):
            if not (self._store and self.id):
                return
            store = self._store
            known = store.find(self._tags(variant, seed, rests_on), "FINISHED")
            if known:
                return
            run_id = self._child(store, variant, seed, rests_on)
            budget = {f"budget/{name}": value for name, value in result["budget"].items()}
            finals = {f"final/{name}": value for name, value in metrics.items()}
            at_ms = samples.stat().st_mtime_ns // 1_000_000  # the same when it is logged again
            points = [point._replace(timestamp_ms=at_ms) for point in to_points(budget | finals)]
            store.log(run_id, points=[*points, *curve_points(result["curve"], at_ms)])
            store.log(run_id, params={"variant": variant, "seed": str(seed)})
            store.log(run_id, params=names.flat_params(params))
            store.artifact(run_id, str(samples.resolve()))
            store.set_status(run_id, "FINISHED")
            self._opened.remove(run_id)

    def summary(self, metrics: Mapping[str, float], files: Sequence[Path]) -> None:
        """Log the summary's figures and files."""
        with self._soft("log the summary"):
            if self._store and self.id:
                self._store.figures(self.id, metrics)
                for file in files:
                    self._store.artifact(self.id, str(file.resolve()))

    def _tags(self, variant: str, seed: int, rests_on: Mapping[str, str]) -> dict[str, str]:
        key = key_of([variant, seed, dict(rests_on)])
        return {"mht.seeds.result": key, "mlflow.parentRunId": str(self.id)}

    def _child(self, store: Store, variant: str, seed: int, rests_on: Mapping[str, str]) -> str:
        tags = self._tags(variant, seed, rests_on)
        tags |= {"mht.kind": "seed", "mht.variant": variant, "mht.seed": str(seed)}
        key = ("mht.seeds.result", "mlflow.parentRunId")
        return self._open(store, f"{variant}-seed{seed}", tags, {}, key)

    def _open(
        self,
        store: Store,
        name: str,
        tags: dict[str, str],
        params: Mapping[str, str],
        key: Sequence[str] = ("mht.kind", "mht.seeds"),
    ) -> str:
        """The run with these tags, open: an earlier one goes on."""
        own = {"mht.process": process_id(), "mlflow.source.name": "mht seeds"}
        known = store.find({name: tags[name] for name in key})
        if known:
            store.set_status(known.id, "RUNNING")
            store.log(known.id, tags=own)
        run_id = known.id if known else store.create_run(name, {**tags, **own})
        self._opened.add(run_id)
        store.log(run_id, params=params)
        return run_id


class NullSeeds(SeedsRun):
    """Tracks nothing."""

    def __init__(self) -> None:
        self._soft, self._opened, self._store, self.id = Soft(), set(), None, None


def curve_points(curve: Sequence[Mapping[str, float]], at_ms: int) -> list[Point]:
    """A learning curve's looks as points by optimiser step; of two at one step the later counts.

    >>> curve_points([{"optimizer_steps": 4, "seconds": 1.5, "score": 0.5}], 9)
    [Point(key='validation/score', value=0.5, timestamp_ms=9, step=4)]
    """
    looks = {int(row["optimizer_steps"]): row for row in curve}
    return [
        Point(name, value, at_ms, step)
        for step, row in looks.items()
        for name, value in names.finite(
            {f"validation/{k}": v for k, v in row.items() if k not in COSTS}
        )
    ]


def key_of(data: Any) -> str:
    """A short name for plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:32]
