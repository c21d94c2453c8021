"""Writes the tables of docs/reference/configuration.md and docs/howto/training.md from mht/config/.

``python -m tools.config_docs`` writes, ``--check`` only says whether the page is out of date.
Keys, types, bounds and defaults are those that are enforced; meanings are the docstrings'.
"""

from __future__ import annotations

import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from mht.cli.docstrings import meanings, summary
from mht.config import Config, OptimizerConfig, SchedulerConfig
from mht.config.choice import Choice
from mht.core.component import Chosen, Component, Section, registry
from tools.marked import fill, update

PAGE, TRAINING = Path("docs/reference/configuration.md"), Path("docs/howto/training.md")
CHOICES: dict[str, type[Choice]] = {"optimisers": OptimizerConfig, "schedules": SchedulerConfig}
HEAD = ["key", "type", "bounds", "default", "meaning"]
PLAIN = {int: "integer", float: "number", str: "text", bool: "true or false", Any: "value"}
PLURAL = {
    "[head](../howto/policy.md#further-heads)": "[heads](../howto/policy.md#further-heads)",
    "integer": "integers",
    "number": "numbers",
    "text": "texts",
    "value": "values",
    "section": "sections",
    "[reward](rewards.md#every-type)": "[rewards](rewards.md#every-type)",
    "[algorithm](../howto/training.md#algorithms)": "[algorithms](../howto/training.md#algorithms)",
    "mapping of names to values": "mappings of settings",
    "mapping of names to integers": "mappings of names to integers",
}
FAMILIES: dict[Any, str] = {
    Annotated[Any, Chosen("head")]: "[head](../howto/policy.md#further-heads)",
    Annotated[Any, Chosen("reward")]: "[reward](rewards.md#every-type)",
    Annotated[Any, Chosen("algorithm")]: "[algorithm](../howto/training.md#algorithms)",
    Annotated[Any, Chosen("mix")]: "[mix](../howto/training.md#mixes)",
    Annotated[Any, Chosen("source")]: "[source](../howto/data.md#what-you-can-point-it-at)",
}
PPO_PARTS = {
    "advantage": "gae",
    "policy_loss": "clip",
    "aggregation": "token_mean",
    "critic": "linear",
}
FAMILIES |= {
    Annotated[Any, Chosen(kind, default)]: f"[{kind}](../howto/training.md#ppos-parts)"
    for kind, default in PPO_PARTS.items()
}
FRESH = Annotated[Any, Chosen("model")]
SIGNS = {"gt": ">", "ge": ">=", "le": "<=", "lt": "<"}
SIZES = ("min_length", "max_length")


class Shape(NamedTuple):
    """A field's type and bounds as people read them."""

    type: str
    bounds: str = ""


def main(arguments: list[str]) -> int:
    """Write or check the pages."""
    training = TRAINING.read_text(encoding="utf-8")
    for name, cls in CHOICES.items():
        training = fill(training, name, choice_table(cls))
    training = fill(training, "ppo_parts", ppo_parts_table())
    texts = {PAGE: fill(PAGE.read_text(encoding="utf-8"), "keys", tables()), TRAINING: training}
    check, command = "--check" in arguments, "python -m tools.config_docs"
    return max(update(page, text, check=check, command=command) for page, text in texts.items())


def choice_table(cls: type[Choice]) -> str:
    """A row for each type of a choice: its options with their defaults."""
    rows = [["type", "options and their defaults"], ["---"] * 2]
    for kind, options in cls.choices.items():
        listed = ", ".join(f"`{key}: {as_yaml(value)}`" for key, value in options.items())
        rows.append([f"`{kind}`", listed or "none"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def ppo_parts_table() -> str:
    """A row for each member of the kinds that are PPO's parts."""
    rows = [["setting", "type", "options and their defaults", "what it does"], ["---"] * 4]
    for kind in PPO_PARTS:
        key = "value_head" if kind == "critic" else kind
        for name, cls in registry(kind).built_in().items():
            options = {n: f for n, f in cls.model_fields.items() if n != "type"}
            listed = ", ".join(f"`{n}: {as_yaml(f.default)}`" for n, f in options.items())
            rows.append([f"`ppo.{key}`", f"`{name}`", listed or "none", plain(summary(cls))])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def tables() -> str:
    """A heading, a sentence and a table for every section, those inside others after them."""
    places: dict[type[Section], str] = {}
    parts = []
    for name, hint in hints(Config).items():
        key, cls = _inside(hint)
        assert cls is not None
        parts += list(_sections(cls, name + key, places, "##"))
    return "\n\n".join(parts)


def _sections(
    cls: type[Section], path: str, places: dict[type[Section], str], level: str
) -> Iterator[str]:
    """The section's own text, then that of each section in it that has none yet."""
    places[cls] = path
    found = [(f"{path}.{name}", *_inside(hint)) for name, hint in hints(cls).items()]
    found += [(f"{path}.{name}", "", options) for name, options in members(cls).items()]
    inner = [(place + key, hint) for place, key, hint in found if hint and hint not in places]
    places |= {hint: place for place, hint in inner}
    above = next((known for known in places if known is not cls and issubclass(cls, known)), None)
    inherited = above.model_fields if above else {}
    rows = [_row(cls, name, path, places) for name in cls.model_fields if name not in inherited]
    rows += [_section_row(f"{path}.{name}", hint, places) for name, hint in members(cls).items()]
    yield f"{level} {path}"
    more = f" It has all keys of [{places[above]}](#{_anchor(places[above])}), and" if above else ""
    yield textwrap.fill(plain(summary(cls)) + more, 100)
    yield "\n".join(f"| {' | '.join(row)} |" for row in [HEAD, ["---"] * len(HEAD), *rows])
    for place, hint in inner:
        yield from _sections(hint, place, places, "###")


def _row(cls: type[Section], name: str, path: str, places: dict[type[Section], str]) -> list[str]:
    hint, field = hints(cls)[name], cls.model_fields[name]
    key = f"`{path}.{name}`"
    if _is_section(hint):
        return _section_row(f"{path}.{name}", hint, places, "required" * field.is_required())
    found = shape(hint)
    default = (
        "required"
        if field.is_required()
        else f"`{as_yaml(field.get_default(call_default_factory=True))}`"
    )
    meaning = meanings(cls)[name]
    if inner := _inside(hint)[1]:
        meaning += f" Keys: [{places[inner]}](#{_anchor(places[inner])})."
    return [key, found.type, found.bounds, default, plain(meaning)]


def _section_row(
    path: str, hint: type[Section], places: dict[type[Section], str], default: str = ""
) -> list[str]:
    link = f"[{places[hint]}](#{_anchor(places[hint])})"
    return [f"`{path}`", "section", "", default, f"{plain(summary(hint))} Keys: {link}."]


def members(cls: type[Section]) -> dict[str, type[Section]]:
    """The sections of a registry's built-in members, where the section has a key for each."""
    if not hasattr(cls, "registry") or issubclass(cls, Component):
        return {}
    return {name: member.Options for name, member in sorted(cls.registry.built_in().items())}


def hints(cls: type[Section]) -> dict[str, Any]:
    """The annotations of a section's fields, bounds included."""
    found = typing.get_type_hints(cls, include_extras=True)
    return {name: found[name] for name in cls.model_fields}


def shape(hint: Any) -> Shape:
    """What an annotation allows.

    >>> from mht.config import Positive
    >>> shape(Positive | Literal["all"])
    Shape(type='integer or `all`', bounds='> 0')
    """
    if hint in PLAIN:
        return Shape(PLAIN[hint])
    if hint == FRESH:
        return Shape("section")
    if hint in FAMILIES:
        return Shape(FAMILIES[hint])
    if hint is type(None):
        return Shape("`null`")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        inner = shape(arguments[0])
        return Shape(inner.type, ", ".join(filter(None, [inner.bounds, _bounds(arguments[1:])])))
    if origin is Literal:
        return Shape(", ".join(f"`{value}`" for value in arguments))
    if _is_section(hint):
        return Shape("section")
    if origin is dict:
        return Shape(f"mapping of names to {PLURAL[shape(arguments[1]).type]}")
    if origin is list:
        inner = shape(arguments[0])
        each = f"each {inner.bounds}" if inner.bounds else ""
        return Shape(f"list of {PLURAL.get(inner.type, inner.type)}", each)
    if origin in (typing.Union, types.UnionType):
        members = [shape(argument) for argument in arguments]
        bounds = ", ".join(m.bounds for m in members if m.bounds)
        return Shape(" or ".join(m.type for m in members), bounds)
    raise TypeError(f"tools/config_docs.py has no words for the type {hint}")


def _bounds(metadata: tuple[Any, ...]) -> str:
    single = [m for item in metadata for m in getattr(item, "metadata", [item])]
    words = [
        f"{sign} {_bound(getattr(m, name))}"
        for m in single
        for name, sign in SIGNS.items()
        if hasattr(m, name)
    ]
    sizes = {getattr(m, name) for m in single for name in SIZES if hasattr(m, name)}
    if sizes:
        words.append(" to ".join(map(str, sorted(sizes))) + " of them")
    return ", ".join(words)


def _bound(value: float) -> str:
    return "2**63" if value == 2**63 else f"{value:g}"


def _inside(hint: Any) -> tuple[str, type[Section] | None]:
    """The section that a hint is, may be or maps names to, with what stands for a name's key."""
    arguments = typing.get_args(hint)
    if _is_section(hint):
        return "", hint
    if hint == FRESH:
        return "", registry("model").get("scratch")
    if typing.get_origin(hint) is Annotated:
        return _inside(arguments[0])
    if typing.get_origin(hint) is dict and _is_section(arguments[1]):
        return ".NAME", arguments[1]
    optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return "", next((found for a in arguments if optional and (found := _inside(a)[1])), None)


def _anchor(heading: str) -> str:
    return heading.lower().replace(".", "")


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Section)


def plain(text: str) -> str:
    """A docstring's text as Markdown inside a table."""
    return text.replace("``", "`").replace("|", "\\|").replace(" +- ", " ± ")


def as_yaml(value: Any) -> str:
    """A default as params.yaml would have it."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {as_yaml(v)}' for key, v in value.items())}}}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) and not value.is_integer() else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
