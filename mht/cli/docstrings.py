"""Parts of docstrings, for the documentation and the command's help."""

from __future__ import annotations

import inspect
import re


def summary(cls: type) -> str:
    """The docstring's first paragraph on one line."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split())


def described(cls: type) -> str:
    """The docstring up to its first section, paragraphs of one line each."""
    before, _, _ = inspect.cleandoc(cls.__doc__ or "").partition("\n\nAttributes:\n")
    return "\n".join(" ".join(part.split()) for part in before.split("\n\n"))


def meanings(cls: type) -> dict[str, str]:
    """Field to its entry under "Attributes" in the class's docstring, inherited fields included."""
    fields = getattr(cls, "model_fields", {})
    above = [_entries(each) for each in reversed(cls.__mro__[1:])]
    inherited = {name: text for part in above for name, text in part.items() if name in fields}
    return inherited | _entries(cls)


def _entries(cls: type) -> dict[str, str]:
    _, _, block = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", block, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
