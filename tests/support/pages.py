"""The Python of the docs' pages, run as it stands."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def run(page: Path) -> dict:
    names: dict = {}
    blocks = python_blocks(page)
    assert blocks, f"{page.name} has no Python"
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    return names
