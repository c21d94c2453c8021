"""The code that stages depend on, by content: another version reruns the stages that it changes.

A project's stages depend on files ``code/mht/<package>.md5`` as the repository's depend on folders
``mht/<package>``. ``python -m mht.projects.code`` writes them; it is the first stage of a project.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pathspec import GitIgnoreSpec

import mht
from mht.core.outputs import replaced_folder, write_text
from mht.projects.shipped import shipped
from mht.tracking.content.pipeline import file_md5, files_md5

FOLDER = "code"
DEP = re.compile(rf"\b{FOLDER}/(mht/[\w/]+)\.md5")


def write_code(pipeline: str | Path = "dvc.yaml", folder: str | Path = FOLDER) -> None:
    """Write the hash of each package that a project's dvc.yaml names into a file."""
    names = sorted(set(DEP.findall(Path(pipeline).read_text(encoding="utf-8"))))
    with replaced_folder(folder) as part:
        for name in names:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            write_text(part / f"{name}.md5", f"{package_md5(name)}\n")


def package_md5(name: str) -> str:
    """DVC's hash of a folder of the installed package.

    Args:
        name: such as ``mht/training``.
    """
    root = Path(mht.__file__).parents[1]
    return files_md5({path: file_md5(root / name / path) for path in _code(root, name)})


def _code(root: Path, name: str) -> Iterator[str]:
    rules = (shipped() / ".dvcignore").read_text(encoding="utf-8").splitlines()
    ignored = GitIgnoreSpec.from_lines(rules)
    for file in (root / name).rglob("*"):
        if file.is_file() and not ignored.match_file(file.relative_to(root)):
            yield file.relative_to(root / name).as_posix()


if __name__ == "__main__":
    write_code()
