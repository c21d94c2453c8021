"""Descriptions of all reward types, for the command `mht rewards` and for the docs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from mht.cli.docstrings import described, meanings
from mht.core.component import Component
from mht.core.errors import UserError
from mht.rewards.base import REWARDS, Reward
from mht.rewards.composed.composition import Composite

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FAMILIES = {
    "match": "Match with the target",
    "surface": "Surface of the text",
    "fluency": "Fluency",
    "classifiers": "Classifiers",
    "safety": "Safety",
    "truth": "Truth",
    "relevance": "Relevance",
    "diversity": "Diversity",
    "domain": "Domains",
    "task": "Tasks",
    "learned": "Learned",
    "composition": "Composition",
    "yours": "Yours",
}
DIRECTIONS = {"high": "high is good", "low": "low is good", "either": "either may be good"}


@dataclass(frozen=True)
class Option:
    """One option of a type.

    Attributes:
        name: as it is written.
        default: as YAML has it; None where it is required.
        choices: the words it may be, where these are all.
        meaning: from the docstring.
    """

    name: str
    default: str | None
    choices: tuple[str, ...]
    meaning: str


def types_of(family: str) -> list[tuple[str, type[Reward]]]:
    """The family's types of this project, by name."""
    found = {cls.type_name: cls for cls in built_in() if cls.family == family}
    return sorted(found.items())


def built_in() -> list[type[Reward]]:
    """The types of this project, each once."""
    ours = set(REWARDS.built_in().values())
    return sorted(ours, key=lambda cls: cls.type_name)


def aliases(cls: type[Reward]) -> list[str]:
    """The other names of a type."""
    return sorted(n for n, c in REWARDS.registered().items() if c is cls and n != cls.type_name)


def options(cls: type[Component], names: list[str]) -> Iterator[Option]:
    """The named options of a class, the required ones first."""
    said = meanings(cls)
    for name in sorted(names, key=lambda name: not cls.model_fields[name].is_required()):
        field = cls.model_fields[name]
        default = None
        if not field.is_required():
            default = plain_data(field.get_default(call_default_factory=True))
        yield Option(name, default, tuple(choices(field.annotation)), said.get(name, ""))


def plain_data(value: Any) -> str:
    """A default as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value).replace("e-0", "e-")


def choices(hint: Any) -> Iterator[str]:
    """The words that an annotation names.

    >>> list(choices(Literal["a", "b"] | None))
    ['a', 'b']
    """
    if get_origin(hint) is Literal:
        yield from (str(value) for value in get_args(hint))
    else:
        for inner in get_args(hint):
            yield from choices(inner)


def span(cls: type[Reward]) -> str:
    """The range and the direction of a type in words."""
    if issubclass(cls, Composite):
        return cls.range_note
    low, high = cls.score_range
    words = f"{low:g} to {high:g}"
    if not math.isfinite(high):
        words = f"from {low:g} on" if math.isfinite(low) else "any number"
    elif not math.isfinite(low):
        words = f"up to {high:g}"
    return "; ".join(filter(None, [f"{words}, {DIRECTIONS[cls.better]}", cls.range_note]))


def show(console: Console, name: str | None) -> None:
    """Print all types, or one with its options.

    Raises:
        UserError: the type does not exist.
    """
    if name is None:
        console.print(_overview())
        console.print("mht rewards TYPE shows a type's options: docs/reference/rewards.md")
        return
    try:
        cls = REWARDS.get(name)
    except KeyError as error:
        raise UserError(str(error.args[0])) from None
    assert issubclass(cls, Reward)
    for part in _about(name, cls):
        console.print(part, markup=False, highlight=False)


def _overview() -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("type", "aliases", "range, direction", "needs", box=box.SIMPLE_HEAD)
    for family, title in FAMILIES.items():
        rows = [(n, ", ".join(aliases(c)), span(c), c.needs) for n, c in types_of(family)]
        if family == "yours":
            rows += [(name, "", "", "an installed package's") for name in installed()]
        if rows:
            table.add_section()
            table.add_row(Text(title, style="bold"))
        for row in rows:
            table.add_row(*map(Text, row))
    return table


def installed() -> list[str]:
    """The names that other packages add."""
    return sorted(set(REWARDS.names()) - set(REWARDS.built_in()))


def _about(name: str, cls: type[Reward]) -> Iterator[Any]:
    others = aliases(cls)
    yield f"{cls.type_name or name}" + (f" (also {', '.join(others)})" if others else "")
    yield re.sub("``?", "", described(cls))
    yield f"range: {span(cls)}" + (f"\nneeds: {cls.needs}" if cls.needs else "")
    own = cls.own_options()
    if own:
        yield _options("options", cls, own)
    shared = [field for field in Reward.model_fields if field not in (*own, "type")]
    yield _options("options of every type", cls, shared)
    if cls.example is not None:
        spec = {"type": cls.type_name or name, **cls.example}
        yield f"for example: {json.dumps(spec)}"


def _options(title: str, cls: type[Reward], names: list[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for column in ("option", "default", "meaning"):
        table.add_column(column, overflow="fold")
    for option in options(cls, names):
        default = "required" if option.default is None else option.default
        unsaid = [word for word in option.choices if word not in option.meaning]
        words = f" ({', '.join(option.choices)})" if unsaid else ""
        meaning = re.sub("``?", "", option.meaning) + words
        table.add_row(*map(Text, (option.name, default, meaning)))
    return table
