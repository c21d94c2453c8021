"""The tasks by name, and the settings file of each.

A task is a package with a ``settings.yaml``: those settings in which it differs from params.yaml.
Beside it lie the task's data sources and rewards. The built-in tasks are the packages of this one;
an installed package adds tasks by the entry point group ``mht.task``, name to package.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

from mht.core.errors import UserError, shown
from mht.core.problems import did_you_mean

HOME = "mht.tasks"
SETTINGS = "settings.yaml"
GROUP = "mht.task"


def task_names() -> list[str]:
    """The names of all tasks, those of installed packages included, sorted."""
    return sorted({name for name, _ in _packages()})


def settings_file(name: str) -> Path:
    """The settings file of a task.

    Raises:
        UserError: no task has the name, several have it, or the file is missing.
    """
    packages = [package for task, package in _packages() if task == name]
    if not packages:
        names = task_names()
        raise UserError(
            f"unknown task {shown(name)}{did_you_mean(name, names)}. Available: {', '.join(names)}"
        )
    if len(packages) > 1:
        raise UserError(
            f"task {name!r} is claimed more than once ({', '.join(packages)}): "
            "uninstall or rename one of them"
        )
    return _settings_in(packages[0], name)


def experiment_file(name: str | Path) -> Path:
    """The settings file that a command's argument means: a file, or that of the task so named.

    Args:
        name: a file's path if it has a suffix or a folder, such as ``mine.yaml``; else a task.
    """
    path = Path(name)
    return path if path.suffix or len(path.parts) > 1 else settings_file(str(name))


def _packages() -> Iterator[tuple[str, str]]:
    """Each task's name and package."""
    yield from (
        (found.name, f"{HOME}.{found.name}")
        for found in iter_modules([str(Path(__file__).parent)])
        if found.ispkg
    )
    yield from ((found.name, found.value) for found in entry_points(group=GROUP))


def _settings_in(package: str, name: str) -> Path:
    try:
        spec = find_spec(package)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        raise UserError(f"task {name!r}: there is no package {package}: install it again")
    file = Path(spec.origin).with_name(SETTINGS)
    if not file.is_file():
        raise UserError(f"task {name!r}: package {package} has no {SETTINGS}: add one to it")
    return file
