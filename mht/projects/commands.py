"""Commands of git and DVC in a project's folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mht.core.errors import UserError


def run(root: Path, *words: str, **environment: str) -> str:
    """What a command printed on stdout.

    Args:
        root: the working folder.
        words: the command line.
        environment: further variables for it.

    Raises:
        UserError: it failed, with the last line that it printed; or it is not installed.
    """
    done = _done(root, *words, **environment)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"{' '.join(words[:4])}: {lines[-1] if lines else 'failed'}")
    return done.stdout.strip()


def succeeds(root: Path, *words: str) -> bool:
    """Whether a command ends with exit code 0.

    Raises:
        UserError: it is not installed.
    """
    return _done(root, *words).returncode == 0


def _done(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    try:
        return subprocess.run(words, cwd=root, capture_output=True, text=True, check=False, env=env)
    except FileNotFoundError:
        raise UserError(f"{words[0]} is not installed: a project needs it") from None
