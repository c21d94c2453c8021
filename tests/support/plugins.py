"""An installed package that adds members of registries from outside, as pip leaves one.

Its entry points are found by every process that has its folder on the path: by the tests with
``monkeypatch.syspath_prepend(folder)``, by the stages of a clone with ``clone.dvc("repro",
PYTHONPATH=on_path(folder))``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

from tests.support.pipeline import quick_start


def install(
    folder: Path,
    module: str,
    code: str,
    members: Mapping[str, Mapping[str, str]],
    settings: str = "",
) -> Path:
    """The folder, with a distribution of one module in it.

    Args:
        folder: where it is written; of several distributions it may be the same.
        module: the module's and the distribution's name; unique among the tests of a process.
        code: of the module.
        members: by kind ("reward", "memory"...), name to class in the module; a value with a colon
            is written as it is, and so is the package of a "task".
        settings: the ``settings.yaml`` of a task; the module is a package then.
    """
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    file = folder / (f"{module}/__init__.py" if settings else f"{module}.py")
    file.parent.mkdir(exist_ok=True)
    file.write_text(dedent(code), encoding="utf-8")
    if settings:
        file.with_name("settings.yaml").write_text(dedent(settings), encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = []
    for kind, named in members.items():
        lines.append(f"[mht.{kind}]")
        for name, target in named.items():
            as_written = ":" in target or kind == "task"
            lines.append(f"{name} = {target if as_written else f'{module}:{target}'}")
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


def on_path(folder: Path) -> str:
    """PYTHONPATH for the stages of a clone, so that they find the distributions in a folder."""
    return os.pathsep.join([str(folder), quick_start()])
