"""Where the project lies."""

from __future__ import annotations

import os
from pathlib import Path


def repo_root() -> Path:
    """Where DVC keeps the project; a temporary experiment's root is the one it came from."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()
