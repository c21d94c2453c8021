"""One process at a time makes the outputs of a stage in a working copy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mht.core.bounds import LONGEST_NAME
from mht.core.errors import UserError

FOLDER = Path(".mht/locks")  # of the working copy: experiments in other folders may run beside it
WAIT_S = 10.0  # a stage that is being ended closes what it has opened


@contextmanager
def alone(command: str, wait_s: float = WAIT_S) -> Iterator[None]:
    """No other process runs this stage's command here while the block runs.

    Args:
        command: names the outputs, such as ``stages.evaluate hybrid``.
        wait_s: seconds to wait for another one to end.

    Raises:
        UserError: another one runs on.
    """
    from filelock import FileLock, Timeout

    FOLDER.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]+", "-", command)[:LONGEST_NAME]
    lock, owner = FileLock(FOLDER / f"{name}.lock"), FOLDER / f"{name}.pid"
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise UserError(_busy(owner)) from None
    try:
        owner.write_text(str(os.getpid()), encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _busy(owner: Path) -> str:
    try:
        pid = owner.read_text(encoding="utf-8")
    except FileNotFoundError:
        pid = ""
    return (
        f"process {pid or '(unknown)'} is making the same outputs: wait for it to end, or stop it"
        f"{f' by kill {pid}' if pid else ''}, then run again"
    )
