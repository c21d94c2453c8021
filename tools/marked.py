"""Generated blocks inside Markdown files that people write. Standard library only.

A block stands between two comments, ``<!-- name:begin -->`` and ``<!-- name:end -->``; what is
outside is never touched.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


class BlockError(Exception):
    """The file has not exactly one block of that name."""


def fill(text: str, name: str, content: str) -> str:
    """The text with the block's content replaced.

    Raises:
        BlockError: there is no such block, or more than one.

    >>> fill("a <!-- x:begin -->old<!-- x:end --> b", "x", "new").split()[4]
    'new'
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    block = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(block.findall(text)) != 1:
        raise BlockError(f"needs exactly one block from {begin} to {end}")
    return block.sub(lambda _: f"{begin}\n{content.strip()}\n{end}", text)


def update(path: Path, text: str, *, check: bool, command: str) -> int:
    """Write the file, or with ``check`` only say whether it is what it should be.

    Returns:
        An exit status: 1 where a check finds another text, else 0.
    """
    if path.read_text(encoding="utf-8") == text:
        print(f"{path}: up to date")
        return 0
    if check:
        print(f"{path}: out of date; run {command}", file=sys.stderr)
        return 1
    path.write_text(text, encoding="utf-8", newline="\n")
    print(f"{path}: written")
    return 0
