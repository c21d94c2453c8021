"""An installed package that adds members of registries from outside, as pip leaves one.

Its entry points are found by every process that has its folder on the path: by the tests with
``monkeypatch.syspath_prepend(folder)``, by the stages of a clone with ``clone.dvc("repro",
PYTHONPATH=on_path(folder))``.

A test module names such a package ``TOY``. ``toy_rows`` is a clone in which one `dvc repro` has
run a row of `baselines` for each; ``foreign`` is one with other data and another model in all
stages.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.support.pipeline import Clone, copy_of, made_once, quick_start

pytest_plugins = ["tests.support.pipeline"]


@dataclass(frozen=True)
class Toy:
    """A distribution of one module.

    Attributes:
        module: the module's and the distribution's name; unique among the tests of a process.
        code: of the module.
        members: by kind ("reward", "memory"...), name to class in the module; a value with a colon
            is written as it is, and so is the package of a "task".
        settings: the ``settings.yaml`` of a task; the module is a package then.
        row: settings of the row that tries it, which has those of `ppo` else; the row is named
            as the module.
        params: other keys of params.yaml, for all stages.
    """

    module: str
    code: str
    members: Mapping[str, Mapping[str, str]]
    settings: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)

    def install(self, folder: Path) -> Path:
        """The folder, with the distribution in it."""
        return install(folder, self.module, self.code, self.members, self.settings)


def install(
    folder: Path,
    module: str,
    code: str,
    members: Mapping[str, Mapping[str, str]],
    settings: str = "",
) -> Path:
    """The folder, with a distribution in it as `Toy` describes one; several may share one."""
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


@pytest.fixture
def site(request, tmp_path, monkeypatch) -> Path:
    """The folder in which the module's toy is installed; this process finds it."""
    folder = request.module.TOY.install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(folder))
    return folder


def tried(request: pytest.FixtureRequest, fixture: str) -> list[Toy]:
    """The toys of the modules in which a chosen test uses a fixture."""
    items = [item for item in request.session.items if fixture in item.fixturenames]
    return list({item.module.TOY.module: item.module.TOY for item in items}.values())


def with_toys(clone: Clone, toys: list[Toy], *targets: str) -> dict[str, Any]:
    """Install toys beside a clone, set what they set, and run the pipeline as far as needed."""
    site = clone.path.parent / "site-packages"
    for toy in toys:
        toy.install(site)
        clone.set_params(toy.params)
        for task in toy.members.get("task", ()):
            clone.run("python", "-m", "mht", "apply", task, PYTHONPATH=on_path(site))
        if toy.row:
            row = {"start": "sft", "like": "ppo", **toy.row}
            clone.set_params({f"baselines.{toy.module}": row})
    clone.dvc("repro", *targets, PYTHONPATH=on_path(site))
    return {}


@pytest.fixture(scope="session")
def toy_rows(request, finished, tmp_path_factory) -> Clone:
    """The finished clone after a `dvc repro` of a row for each toy, once for all processes."""
    used = tried(request, "toy_rows")

    def make(root: Path) -> dict[str, Any]:
        return with_toys(copy_of(finished, root), used, *(f"ppo@{toy.module}" for toy in used))

    return Clone(made_once(tmp_path_factory, "toy_rows", make)[0])


@pytest.fixture(scope="session")
def foreign(request, finished, tmp_path_factory) -> Clone:
    """The finished clone after a `dvc repro` on the toys' own data and model."""
    used = tried(request, "foreign")

    def make(root: Path) -> dict[str, Any]:
        return with_toys(copy_of(finished, root), used, "evaluate@hybrid")

    return Clone(made_once(tmp_path_factory, "foreign", make)[0])
