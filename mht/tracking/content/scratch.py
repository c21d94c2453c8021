"""Where a stage keeps the state of a run that may be killed: outside DVC's outs, by content.

The folder's name is the fingerprint of all that decides the stage's outcome, so a changed setting,
code or data never meets an older state.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from mht.core.project import repo_root
from mht.tracking.names import clean

KEPT_S = 7 * 24 * 3600.0
FRESH = "MHT_FRESH"  # set to 1 in the environment to start over


def fingerprint(command: str, read: Mapping[str, str], settings: Mapping[str, str]) -> str:
    """A name for everything that decides a stage's outcome.

    Args:
        command: its command line.
        read: path to md5 of its deps.
        settings: its flat parameters.
    """
    content = json.dumps([command, dict(read), dict(settings)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def scratch_folder(stage: str, identity: str) -> Path:
    """The folder for the state of one stage's run.

    What other runs of the stage have left is dropped after a week without a change.
    """
    folder = repo_root() / ".mht" / "scratch" / clean(stage) / identity
    for other in folder.parent.glob("*/"):
        if other != folder and time.time() - other.stat().st_mtime > KEPT_S:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def start_over(folders: Iterable[Path]) -> None:
    """Empty folders of states, and of finished seeds, if the user wants a fresh start."""
    if os.environ.get(FRESH, "") not in ("", "0"):
        for folder in folders:
            for place in (folder, finished_folder(folder)):
                shutil.rmtree(place, ignore_errors=True)


def finished_folder(scratch: Path) -> Path:
    """Where the results of a training seed that has ended wait for the other seeds."""
    return scratch.with_name(f"{scratch.name}.done")
