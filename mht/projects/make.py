"""Makes the folder of a project: settings, pipeline, git and DVC."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from mht.core.errors import UserError
from mht.core.outputs import write_text
from mht.projects.commands import run, succeeds
from mht.projects.dvc_yaml import project_pipeline
from mht.projects.shipped import FILES, shipped

TEMPLATES = Path(__file__).with_name("templates")
OWN = {  # templates of what a project does not share with the repository
    "gitignore": ".gitignore",
    "README.md": "README.md",
    "local.md": "data/local/README.md",
    "rewards.md": "rewards/README.md",
    "mine.py": "rewards/mine.py",
}
PIPELINE = "dvc.yaml"
UPDATED = (PIPELINE, "stages")
NOBODY = {  # whom git names where it knows no user
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "mht"), ("EMAIL", "mht@localhost"))
}


def is_project(folder: str | Path) -> bool:
    """Whether a folder holds a project."""
    return all((Path(folder) / name).is_file() for name in (PIPELINE, "params.yaml"))


def make_project(folder: str | Path, *, alone: bool = False) -> Path:
    """A folder with a project in it, tracked by git and DVC but for a first commit.

    Args:
        folder: made if need be. It may lie in a git repository, which then tracks it.
        alone: it has a git repository to itself wherever it lies.

    Raises:
        UserError: a file of a project is there already, or git is missing.
    """
    root = Path(folder)
    _refuse_others(root)
    root.mkdir(parents=True, exist_ok=True)
    if alone or not succeeds(root, "git", "rev-parse", "--is-inside-work-tree"):
        run(root, "git", "init", "-q")
    below = [] if _is_top(root) else ["--subdir"]
    run(root, sys.executable, "-m", "dvc", "init", "-q", *below)
    _copy(root, FILES)
    for name, place in OWN.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TEMPLATES / name, root / place)
    return root


def update_project(folder: str | Path) -> None:
    """Write a project's pipeline and stages as the installed package has them.

    Raises:
        UserError: the folder holds no project.
    """
    root = Path(folder)
    if not is_project(root):
        raise UserError(f"{root}: there is no project here: run mht init without --update")
    _copy(root, UPDATED)


def commit(root: Path, message: str) -> bool:
    """Add a project to git, and commit what is new where it has a repository to itself.

    Returns:
        Whether it has.
    """
    run(root, "git", "add", ".")
    if not _is_top(root):
        return False
    if succeeds(root, "git", "diff", "--cached", "--quiet"):
        return True
    named = {} if succeeds(root, "git", "config", "user.email") else NOBODY
    run(root, "git", "commit", "-q", "-m", message, **named)
    return True


def _copy(root: Path, names: tuple[str, ...]) -> None:
    source = shipped()
    for name in names:
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source / name, target, ignore=ignored, dirs_exist_ok=True)
        elif name == PIPELINE:
            text = (source / name).read_text(encoding="utf-8")
            write_text(target, project_pipeline(text))
        else:
            shutil.copyfile(source / name, target)


def _refuse_others(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file: name a folder")
    there = [name for name in _made() if (root / name).exists()]
    if there:
        has = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "")
        raise UserError(f"{root} already has {has}: name another folder, or use --update")


def _made() -> Iterator[str]:
    yield from (name.partition("/")[0] for name in FILES)
    yield from (place for place in OWN.values() if place != ".gitignore")


def _is_top(root: Path) -> bool:
    return Path(run(root, "git", "rev-parse", "--show-toplevel")).resolve() == root.resolve()
