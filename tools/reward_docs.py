"""Writes the tables of docs/reference/rewards.md from mht/rewards/.

``python -m tools.reward_docs`` writes, ``--check`` only says whether the page is out of date.
Types, options and defaults are those that are enforced; what a type gives is its docstring's first
paragraph.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from mht.cli.docstrings import summary
from mht.cli.reward_types import FAMILIES, Option, aliases, options, span, types_of
from mht.core.component import Component
from mht.rewards.base import POSTPROCESS, Reward
from tools.config_docs import plain
from tools.marked import fill, update

PAGE = Path("docs/reference/rewards.md")
HEAD = ["type (aliases)", "options = default", "gives", "range, direction", "needs"]


def main(arguments: list[str]) -> int:
    """Write or check the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name, tables in {"types": types(), "postprocess": steps(), "every": every()}.items():
        text = fill(text, name, tables)
    check = "--check" in arguments
    return update(PAGE, text, check=check, command="python -m tools.reward_docs")


def types() -> str:
    """A heading and a table for each family that has a type."""
    parts = []
    for family, title in FAMILIES.items():
        rows = [_type(cls) for _, cls in types_of(family)]
        if rows:
            parts += [f"### {title}", _table(HEAD, rows)]
    return "\n\n".join(parts)


def _type(cls: type[Reward]) -> list[str]:
    names = f"`{cls.type_name}`"
    if others := aliases(cls):
        names += f" ({', '.join(f'`{name}`' for name in others)})"
    return [names, listed(options(cls, cls.own_options())), summary(cls), span(cls), cls.needs]


def steps() -> str:
    """The postprocess table."""
    rows = []
    for name, cls in sorted(POSTPROCESS.built_in().items()):
        rows.append([f"`{name}`", listed(_step(cls)), summary(cls)])
    return _table(["type", "options = default", "does"], rows)


def _step(cls: type[Component]) -> Iterable[Option]:
    return options(cls, [name for name in cls.model_fields if name != "type"])


def every() -> str:
    """The options that all types have."""
    names = [name for name in Reward.model_fields if name != "type"]
    rows = [
        [f"`{option.name}`", f"`{option.default}`", option.meaning]
        for option in options(Reward, names)
    ]
    return _table(["option", "default", "meaning"], rows)


def listed(found: Iterable[Option]) -> str:
    """Options with their defaults and choices; those without a default are required.

    >>> listed([Option("mode", "a", ("a", "b"), ""), Option("min", None, (), "")])
    '`mode`=a (b), `min`'
    """
    return ", ".join(map(_option, found))


def _option(option: Option) -> str:
    text = f"`{option.name}`"
    if option.default is not None:
        safe = re.fullmatch(r"[\w./:{}\[\]-]+", option.default)
        text += f"={option.default if safe else f'`{option.default}`'}"
    others = [choice for choice in option.choices if choice != option.default]
    return f"{text} ({', '.join(others)})" if others else text


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = [head, ["---"] * len(head), *([plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
