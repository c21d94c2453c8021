"""The dvc.yaml of a project: the repository's, whose stages depend on the installed package."""

from __future__ import annotations

import re

from mht.projects.code import FOLDER

HEAD = f"""\
# variants -> fetch -> prepare -> reward_model -> sft -> ppo -> evaluate -> benchmark.
# `dvc dag` draws it; `dvc repro` runs what changed. A stage depends on the data and the settings
# that it reads, and on the code whose edit can change its result. `{FOLDER}` has that code's
# content, a file for each package of the installed mht: another version reruns what it changes.

stages:
  {FOLDER}: # looks at the installed package each time
    cmd: python -m mht.projects.code
    always_changed: true
    outs: [{FOLDER}]

"""
STAGES = "stages:\n"
PACKAGE = re.compile(r"(?<![\w/.])(mht/[\w/]+)")


def project_pipeline(repository: str) -> str:
    r"""A project's dvc.yaml.

    Args:
        repository: the text of the repository's.

    >>> project_pipeline("# top\n\nstages:\n  a:\n    deps: [mht/core, b]\n").splitlines()[-1]
    '    deps: [code/mht/core.md5, b]'
    """
    _, _, stages = repository.partition(STAGES)
    return HEAD + PACKAGE.sub(rf"{FOLDER}/\1.md5", stages)
