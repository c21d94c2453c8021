"""Variants as DVC experiments: what to type for each, and the queue that they go into."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mht.config.overlays.overlay import load_experiment, read_mapping
from mht.core.errors import ConfigError, UserError
from mht.experiments.variants import variants_of

PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/.")


@dataclass(frozen=True)
class Experiment:
    """A variant as a DVC experiment.

    Attributes:
        name: of the experiment.
        settings: for ``dvc exp run -S``, in order.
    """

    name: str
    settings: tuple[str, ...]

    @property
    def arguments(self) -> list[str]:
        """Those of `dvc` that queue it."""
        return [
            "exp", "run", "--queue", "--name", self.name,
            *(part for setting in self.settings for part in ("-S", setting)),
        ]  # fmt: skip

    @property
    def command(self) -> str:
        """The same, to be typed."""
        return shlex.join(["dvc", *self.arguments])


def experiments_of(file: str | Path, params: str | Path = "params.yaml") -> list[Experiment]:
    """The variants of a file as DVC experiments, after a check of each.

    Args:
        file: with ``benchmark.variants``, laid over ``params``.
        params: what the pipeline reads.

    Raises:
        ConfigError: with every mistake; the pipeline trains hybrids, no other recipe.
    """
    wanted = load_experiment(file, params)
    own = [v for v in variants_of(wanted) if v.name in wanted.benchmark.variants]
    others = [v for v in own if v.recipe != "hybrid"]
    if others:
        what = "the pipeline's `ppo` stage is a hybrid: spell it in settings of ppo and sft"
        found = [f"benchmark.variants.{v.name}.recipe: {v.recipe}: {what}" for v in others]
        raise ConfigError(found, str(file))
    if not own:
        raise ConfigError(["benchmark.variants: there are none"], str(file))
    settings = read_mapping(params)
    return [Experiment(v.name, tuple(as_settings(v.changes, settings))) for v in own]


def as_settings(
    changes: Mapping[str, Any], params: Mapping[str, Any], path: str = ""
) -> Iterator[str]:
    """Nested changes as values of ``dvc exp run -S``.

    As in an overlay, what has a ``type`` replaces the whole: it is taken out first.

    >>> list(as_settings({"ppo": {"lr": 0.5, "kl": {"type": "a"}}}, {"ppo": {"kl": {"type": "b"}}}))
    ['++ppo.lr=0.5', '~ppo.kl', '++ppo.kl={type: a}']
    """
    for key, value in changes.items():
        here = f"{path}.{key}" if path else key
        inner = params.get(key)
        is_part = isinstance(value, Mapping) and "type" not in value
        if is_part and isinstance(inner, Mapping):
            yield from as_settings(value, inner, here)
            continue
        if isinstance(value, Mapping) and key in params:
            yield f"~{here}"
        yield f"++{here}={_literal(value)}"


def _literal(value: Any) -> str:
    """The value in the grammar of overrides (Hydra's)."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_literal(v)}" for key, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, str) and not (PLAIN.issuperset(value) and value[:1].isalpha()):
        # a backslash stands for itself unless a quote follows
        doubled = re.sub(r"(\\+)(?='|$)", r"\1\1", value)
        return "'" + doubled.replace("'", "\\'") + "'"
    return str(value)


QUEUED, KNOWN, AGAIN = (
    "queued",
    "is there already",
    "queued again: the worker that ran it has died",
)


def queue(experiments: Sequence[Experiment]) -> Iterator[tuple[Experiment, str]]:
    """Put experiments into DVC's queue; those whose name is known there or done are left.

    Yields:
        Each experiment with what became of it: QUEUED, KNOWN or AGAIN.

    Raises:
        UserError: DVC refuses; with what it says.
    """
    known, dead = _known(), set(lost())
    for experiment in experiments:
        if experiment.name in dead:
            _forget(experiment.name)
        if experiment.name not in known or experiment.name in dead:
            done = subprocess.run(
                [sys.executable, "-m", "dvc", *experiment.arguments],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                said = done.stderr.strip() or done.stdout.strip()
                raise UserError(f"{experiment.command}\n{said}")
        new = KNOWN if experiment.name in known else QUEUED
        yield experiment, AGAIN if experiment.name in dead else new


def lost() -> list[str]:
    """Names of the tasks that DVC's queue calls running though nothing runs them any more.

    Raises:
        UserError: no DVC project here.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            tasks = repo.experiments.celery_queue
            active = list(tasks._iter_active_tasks())  # has each task's id, as the workers do
            if not active:
                return []
            busy = {task["id"] for held in tasks.worker_status().values() for task in held}
            gone = [t.entry for t in active if t.async_result.id not in busy]
            return [e.name or e.stash_rev[:7] for e in gone if not _runs(tasks, e.stash_rev)]
    except DvcException as error:
        raise UserError(f"no DVC project here: {error}") from None


def _runs(tasks: Any, rev: str) -> bool:
    """Whether the process of a task lives, without its worker."""
    process = tasks.proc.get(rev)
    return process is not None and process.returncode is None and psutil.pid_exists(process.pid)


def _forget(name: str) -> None:
    """Take a lost task off the queue's list of running ones."""
    from dvc.repo import Repo

    with Repo() as repo:
        tasks = repo.experiments.celery_queue
        tasks.kill([name])
        tasks.remove([name])


def _known() -> set[str]:
    """Names of the experiments that are done, running or queued."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    from mht.tracking.pipeline import experiments

    try:
        with Repo() as repo:
            tasks = repo.experiments.celery_queue
            waiting = [*tasks.iter_queued(), *tasks.iter_active()]
        return {entry.name for entry in waiting if entry.name} | experiments().keys()
    except DvcException as error:
        raise UserError(f"no DVC project here: {error}") from None
