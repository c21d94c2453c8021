"""Which `dvc` started this process, and the signals that end it.

A stage is a child of `dvc repro`, `dvc exp run` or a queue worker. That ancestor is what the stages
of one pipeline run have in common, so its identity is the session's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import psutil

from mht.core.processes.lifetime import SHELLS


class Pruned(BaseException):
    """A search for hyperparameters ends this trial early."""


class Terminated(BaseException):
    """SIGTERM arrived: someone wants this stage to end."""


def process_id(process: psutil.Process | None = None) -> str:
    """``host:pid:start`` of a process (this one by default); no other ever has the same."""
    process = process or psutil.Process()
    return f"{socket.gethostname()}:{process.pid}:{_start(process)}"


def _start(process: psutil.Process) -> int:
    """When it started: ticks since boot on Linux, where clock changes move psutil's seconds."""
    if sys.platform == "linux":
        after_name = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2]
        return int(after_name.split()[19])
    return int(process.create_time())


def is_alive(identity: str) -> bool:
    """Whether a process named by `process_id` may still run; True for another machine's."""
    host, pid, _ = identity.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    with contextlib.suppress(psutil.Error, OSError):
        return process_id(psutil.Process(int(pid))) == identity
    return False


def dvc_process() -> psutil.Process | None:
    """The `dvc` that started this stage, or None for a stage started by hand.

    A program that drives DVC through its Python API has no `dvc` in its command line. If DVC set
    this stage's environment, the program is the nearest ancestor that is no shell.
    """
    ancestors = psutil.Process().parents()
    for ancestor in ancestors:
        with contextlib.suppress(psutil.Error):
            if "dvc" in [os.path.basename(word) for word in ancestor.cmdline()[:3]]:
                return ancestor
    if "DVC_STAGE" in os.environ:
        return next((a for a in ancestors if a.name() not in SHELLS), None)
    return None


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within it the first SIGTERM raises `Terminated`.

    Later ones are ignored, as one `kill` of DVC may reach a stage twice: from DVC and from the
    kernel. SIGKILL is left for the impatient.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
