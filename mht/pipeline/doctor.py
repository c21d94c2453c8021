"""What can be wrong with an installation or a project, and how to mend it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mht.checks import watched
from mht.checks.data_files import check_data
from mht.checks.names import names
from mht.checks.preflight import problems
from mht.config import load_config
from mht.core.errors import UserError, first_line
from mht.core.project import repo_root

GB = 1e9
SPACE = 10 * GB  # the default experiment: models, their checkpoints, DVC's cache
KEPT = ("README.md", ".gitignore")  # what git may have of data/local
OUTS = ("data/raw", "data/prepared", "models", "reports", "settings")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: "wrong" keeps something from working.
        what: was found.
        mend: the command or the step that mends it; empty if nothing is wrong.
    """

    level: Literal["ok", "note", "wrong"]
    what: str
    mend: str = ""


def examine() -> Iterator[Finding]:
    """Every finding, one check after the other."""
    for check in CHECKS:
        yield from check()


def _python() -> Iterator[Finding]:
    ours, found = Path(sys.executable), shutil.which("python")
    if found and Path(found).parent.resolve() == ours.parent.resolve():
        yield Finding("ok", f"Python {sys.version.split()[0]} runs the stages")
        return
    what = f"stages run {found or 'no Python'}, this is {ours}"
    yield Finding("wrong", what, f"source {ours.parent}/activate")


def _tools() -> Iterator[Finding]:
    for tool, mend in (("git", "install git"), ("dvc", "source .venv/bin/activate")):
        place = shutil.which(tool)
        yield (
            Finding("ok", f"{tool} is {place}")
            if place
            else Finding("wrong", f"{tool} is not on the PATH", mend)
        )


def _torch() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        yield Finding("ok", f"torch {torch.__version__} on {torch.cuda.get_device_name()}")
    elif shutil.which("nvidia-smi"):
        what = f"torch {torch.__version__} can't use the NVIDIA GPU of this machine"
        yield Finding("note", what, "TORCH=cuda make env, or a newer driver")
    else:
        yield Finding("ok", f"torch {torch.__version__} on the CPU")


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(repo_root()).free
    what = f"{free / GB:.1f} GB free in {repo_root().name}"
    if free > SPACE:
        yield Finding("ok", what)
    else:
        mend = f"make room: the default experiment takes up to {SPACE / GB:.0f} GB; `dvc gc -w`"
        yield Finding("note" if free > SPACE / 2 else "wrong", what, mend)


def _settings() -> Iterator[Finding]:
    try:
        config = load_config()
        data = check_data(config.data)
        found = [*names(config), *problems(config), *data, *watched.problems(config)]
    except UserError as error:
        found = [str(error).splitlines()[0]]
    for problem in dict.fromkeys(found):
        yield Finding("wrong", problem, "edit params.yaml; `mht check` has all of it")
    if not found:
        yield Finding("ok", "params.yaml is right")


def _tracked() -> Iterator[Finding]:
    """Data and outputs that git has, where they are committed with every change."""
    data = [name for name in _git("ls-files", "data/local") if not _may_be_tracked(name)]
    for name in data:
        yield Finding("wrong", f"git has {name}", f"git rm --cached {name} && dvc add {name}")
    outs = _git("ls-files", *OUTS)
    if outs:
        mend = f"git rm -r --cached {' '.join(sorted({Path(name).parts[0] for name in outs}))}"
        yield Finding("wrong", f"git has {len(outs)} outputs of stages, such as {outs[0]}", mend)
    if not data and not outs:
        yield Finding("ok", "git has no data and no outputs of stages")


def _may_be_tracked(name: str) -> bool:
    return Path(name).name in KEPT or name.endswith(".dvc")


def _git(*words: str) -> list[str]:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def _queue() -> Iterator[Finding]:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            queue = repo.experiments.celery_queue
            waiting = list(queue.iter_queued())
            workers = queue.worker_status() if waiting else {}
    except DvcException as error:
        yield Finding("wrong", f"DVC: {first_line(error)}", "run it in the project's folder")
        return
    if waiting and not workers:
        what = f"{len(waiting)} queued experiments wait for a worker"
        yield Finding("wrong", what, "dvc queue start, or dvc queue remove --queued")
    else:
        yield Finding("ok", f"DVC's queue: {len(waiting)} waiting, {len(workers)} workers")


def _store() -> Iterator[Finding]:
    from mht.tracking.store import open_store, reachable, store_exists

    if not store_exists():
        yield Finding("ok", "MLflow's store is made by the first stage")
        return
    try:
        with reachable():
            open_store(load_config().base.experiment)
    except UserError as error:
        yield Finding("wrong", str(error), "move mlflow.db away; the next stage makes a new one")
        return
    yield Finding("ok", "MLflow's store opens")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _tools,
    _torch,
    _disk,
    _settings,
    _tracked,
    _queue,
    _store,
)
