"""What pydantic found wrong, as one line for each mistake, each with its path."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from mht.core.errors import SHOWN, shown

MANY = 5  # choices; a list of more of them is not read to its end
HINTED = 200  # keys of a mapping; in one of more no two names are compared


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the closest known name, or nothing."""
    if len(name) > 100:
        return ""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def refuse(problems: Iterable[tuple[str, str]]) -> None:
    """Inside a section's validator: raise what is wrong with its keys, if anything is.

    Args:
        problems: key and sentence of each; the key may be dotted, or "" for the section itself.
    """
    found = list(problems)
    if found:
        text = "; ".join(f"{key}: {what}" if key else what for key, what in found)
        raise PydanticCustomError("refused", "{text}", {"text": text, "problems": found})


def meant_as_type(data: Mapping[str, Any]) -> str:
    """A hint where another key seems to hold the type's name, or nothing."""
    near = difflib.get_close_matches("type", [str(key).lower() for key in data], n=1, cutoff=0.5)
    keys = [key for key in data if str(key).lower() in ("name", "kind", "class", *near)]
    return f" (did you mean 'type' for {keys[0]!r}?)" if keys else ""


def one_each(problems: Iterable[str]) -> list[str]:
    """One line for each path: a value that fits no member of a union is one mistake."""
    found: dict[str, list[str]] = {}
    for where, _, what in (problem.partition(": ") for problem in dict.fromkeys(problems)):
        found.setdefault(where, []).append(what)
    for said in found.values():
        got = f", got {said[-1].rpartition(', got ')[2]}"
        said[:-1] = [what.removesuffix(got) for what in said[:-1]]
    return [f"{where}: {', or '.join(said)}" for where, said in found.items()]


def problems(errors: Iterable[Any], cls: type[Any], data: Any, path: str) -> Iterable[str]:
    """One line for each of pydantic's errors: where, and what is wrong.

    Args:
        errors: what ``ValidationError.errors()`` gives.
        cls: the section that refused the data.
        data: what YAML or JSON gave.
        path: where ``data`` stands.
    """
    for error in errors:
        context, kind = error.get("ctx", {}), error["type"]
        here, value = _walk(path, data, error["loc"])
        if kind == "nested":
            yield from problems(context["errors"], context["cls"], value, here)
        elif kind == "component":
            yield f"{_walk(here, value, context['at'])[0]}: {context['text']}"
        elif kind == "refused":
            for key, what in context["problems"]:
                yield f"{'.'.join(filter(None, [here, key])) or 'the top level'}: {what}"
        elif kind == "extra_forbidden":
            yield f"{here}: {_unknown_key(cls, str(error['loc'][-1]), data)}"
        elif kind == "missing":
            yield f"{here}: is required and missing"
        else:
            yield f"{here or 'the top level'}: {_sentence(error)}"


def _walk(path: str, data: Any, loc: Iterable[Any]) -> tuple[str, Any]:
    """Follow pydantic's location through the data; union tags at its end are no keys."""
    for key in loc:
        if isinstance(data, Mapping):
            step = key if isinstance(key, str) and key.isprintable() else shown(key)
            step = step if len(step) <= SHOWN else shown(step)
            path, data = f"{path}.{step}" if path else step, data.get(key)
        elif isinstance(data, list | tuple) and isinstance(key, int):
            path, data = f"{path}[{key}]", data[key] if key < len(data) else None
        elif data is None and isinstance(key, str) and not path:
            path = key
    return path, data


def _unknown_key(cls: type[Any], key: str, data: Any) -> str:
    if key in cls.not_here:
        return cls.not_here[key]
    known = cls.keys_for(data)
    hint = did_you_mean(key, known) if len(data) < HINTED else ""
    return f"no such option {shown(key)}{hint}. Available: {', '.join(known)}"


def _sentence(error: Any) -> str:
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message.replace("Input should be", "should be")
    got = error.get("input")
    if error["type"] == "literal_error" and isinstance(got, str) and message.count("'") > MANY * 2:
        message += did_you_mean(got, message.split("'")[1::2])
    if error["type"] == "string_type" and isinstance(got, int | float):
        message += ": put it in quotes"
    if isinstance(got, str) and len(got) > SHOWN:  # a validator may have echoed it whole
        message = message.replace(repr(got), shown(got)).replace(got, shown(got))
    if not message[:2].isupper():  # an abbreviation, such as PPO, stays
        message = message[:1].lower() + message[1:]
    return message if isinstance(got, Mapping | list) else f"{message}, got {shown(got)}"
