"""The tasks by name, and the settings file of each.

A task is a package with a ``settings.yaml``: those settings in which it differs from params.yaml.
Beside it lie the task's data sources and rewards. The built-in tasks are the packages of this one;
an installed package adds tasks by the entry point group ``mht.task``, name to package.

"quick" is no task but a profile of each: fewer steps, prompts and variants, for ideas in minutes. A
task may have its own beside its settings, ``quick.yaml``; the others share the one in this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

from mht.core.errors import UserError, shown
from mht.core.problems import did_you_mean

HOME = "mht.tasks"
SETTINGS = "settings.yaml"
QUICK = "quick"
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
        names = [*task_names(), QUICK]
        raise UserError(
            f"unknown task {shown(name)}{did_you_mean(name, names)}. Available: {', '.join(names)}"
        )
    if len(packages) > 1:
        raise UserError(
            f"task {name!r} is claimed more than once ({', '.join(packages)}): "
            "uninstall or rename one of them"
        )
    return _settings_in(packages[0], name)


def quick_file(task: str) -> Path:
    """The quick profile of a task, or the one that all tasks without their own share."""
    own = settings_file(task).with_name(f"{QUICK}.yaml") if task in task_names() else None
    return own if own and own.is_file() else Path(__file__).with_name(f"{QUICK}.yaml")


def experiment_files(names: Iterable[str | Path], task: str = "") -> list[Path]:
    """The settings files that a command's arguments mean.

    Args:
        names: a file's path has a suffix or a folder, such as ``mine.yaml``. The others are tasks,
            or "quick": the profile of the task named before it.
        task: whose profile "quick" is where no task is named before it.
    """
    files = []
    for name in names:
        path = Path(name)
        if path.suffix or len(path.parts) > 1:
            files.append(path)
        elif str(name) == QUICK:
            files.append(quick_file(task))
        else:
            task = str(name)
            files.append(settings_file(task))
    return files


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
