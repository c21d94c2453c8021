"""The files of a project as the package has them: in its wheel, or in the repository around it."""

from __future__ import annotations

from pathlib import Path

import mht
from mht.core.errors import UserError

# what a project shares with the repository; pyproject.toml puts the same into the wheel
FILES = ("params.yaml", "dvc.yaml", ".dvcignore", ".dvc/config", ".dvc/plots", "stages", "configs")


def shipped() -> Path:
    """The folder that holds `FILES`.

    Raises:
        UserError: the package was installed without them.
    """
    package = Path(mht.__file__).parent
    places = (package / "projects" / "files", package.parent)
    found = next((place for place in places if (place / "dvc.yaml").is_file()), None)
    if found is None:
        raise UserError(f"{package} has no project files: install mht again")
    return found
