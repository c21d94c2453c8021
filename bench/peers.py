"""The processes of a comparison, each in the environment of its library, asked round by round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ENVIRONMENTS = Path(".mht/bench")


def python_of(environment: str) -> str:
    """The interpreter of a peer's environment, which is made if it is not there or out of date."""
    if not environment:
        return sys.executable
    home = ENVIRONMENTS / environment
    wanted = Path(f"bench/requirements-{environment}.txt")
    stamp = home / "installed.txt"
    python = str((home / "bin" / "python").absolute())
    if not stamp.exists() or stamp.read_text() != wanted.read_text():
        print(f"making the environment {home} ...", file=sys.stderr, flush=True)
        venv.create(home, clear=True, with_pip=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        below = home / "lib" / version / "site-packages" / "project.pth"
        below.write_text(sysconfig.get_paths()["purelib"] + "\n")  # torch, the same for both
        command = [python, "-m", "pip", "install", "-q", "-r", str(wanted)]
        subprocess.run(command, check=True)
        stamp.write_text(wanted.read_text())
    return python


class Side:
    """A worker process with its model loaded.

    Args:
        python: the interpreter.
        side: a module in bench/sides.
        settings: what its ``prepare`` is given.

    Raises:
        RuntimeError: (from any method) the process has ended.
    """

    def __init__(self, python: str, side: str, settings: Mapping[str, Any]):
        command = [python, "bench/worker.py", side, json.dumps(settings)]
        quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
        self.name = side
        self.errors = ENVIRONMENTS / f"{side}.log"
        self.errors.parent.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors.open("w"),
            text=True,
            env={**os.environ, **quiet, "PYTHONPATH": os.getcwd()},
        )

    def answer(self) -> dict[str, Any]:
        """The next answer; what else a library prints is passed over."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, _, answer = line.partition(" ")
            if word == "answer":
                return dict(json.loads(answer))
        raise RuntimeError(f"{self.name} has ended: see {self.errors}")

    def once(self) -> dict[str, Any]:
        """One round."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def started(*sides: tuple[str, str, Mapping[str, Any]]) -> list[Side]:
    """Sides (environment, module, settings), loaded and warm."""
    found = [Side(python_of(environment), name, s) for environment, name, s in sides]
    for side in found:
        side.answer()
    return found
