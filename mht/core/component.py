"""The one mechanism by which plain data (YAML, JSON) becomes typed objects.

A `Section` is a frozen pydantic model that refuses unknown keys. A `Component` is a section chosen
by its ``type:`` key from a `Registry`; its fields are its options. `build` reports every mistake at
once, each with the path to type into ``dvc exp run -S``.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from itertools import islice
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError, core_schema

from mht.core.errors import LISTED, SHOWN, ConfigError, shown
from mht.core.plain import misfit

S = TypeVar("S", bound="Section")
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


class Registry:
    """The names that YAML may write in a ``type:`` key, for one kind of component.

    Installed packages add names through the entry point group ``mht.<kind>``; such a package is
    imported only when its name is used.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._classes: dict[str, type[Component]] = {}

    def register(self, *names: str) -> Callable[[type[Any]], type[Any]]:
        """Decorate a component class with its name and aliases; a taken name is refused."""

        def add(cls: type[Any]) -> type[Any]:
            for name in names:
                known = self._classes.setdefault(name, cls)
                if known is not cls:
                    raise ValueError(
                        f"{self.kind} {name!r} is already registered by "
                        f"{known.__module__}.{known.__qualname__}"
                    )
            return cls

        return add

    def names(self) -> list[str]:
        """Every name, plug-ins included, sorted."""
        return sorted({*self._classes, *(p.name for p in self._plugins())})

    def get(self, name: str) -> type[Component]:
        """The class behind a name.

        Raises:
            KeyError: no such name, or its plug-in does not load; the message says which.
        """
        plugins = [p for p in self._plugins() if p.name == name]
        if plugins and (name in self._classes or len(plugins) > 1):
            taken = self._classes.get(name)
            if taken is None or taken.__module__ != plugins[0].module:
                owners = ", ".join(p.value for p in plugins)
                raise KeyError(f"{self.kind} {name!r} is claimed more than once ({owners})")
        if plugins and name not in self._classes:
            try:
                self._classes[name] = plugins[0].load()
            except (ImportError, AttributeError) as error:
                raise KeyError(
                    f"{self.kind} {name!r} comes from plug-in {plugins[0].value}, "
                    f"which does not load: {error}"
                ) from error
        if name not in self._classes:
            names = self.names()
            raise KeyError(
                f"unknown {self.kind} {shown(name)}{did_you_mean(name, names)}. "
                f"Available: {', '.join(names)}"
            )
        return self._classes[name]

    def _plugins(self) -> Iterable[Any]:
        return _installed(f"mht.{self.kind}", tuple(sys.path))


@lru_cache
def _installed(group: str, path: tuple[str, ...]) -> Iterable[Any]:
    """The entry points of a group; reading every package's takes 15 ms, so once per ``path``."""
    return entry_points(group=group)


class Section(BaseModel):
    """A frozen part of the configuration: unknown keys and wrong types are refused.

    Attributes:
        not_here: keys that people look for here, and why there are none.
    """

    not_here: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="wrap")
    @classmethod
    def _keep_own_errors_together(cls, data: Any, handler: Any) -> Any:
        try:
            return handler(data)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            text = "; ".join(_one_each(islice(_problems(errors, cls, data, ""), LISTED)))
            details = {"cls": cls, "errors": errors, "text": text}
            raise PydanticCustomError("nested", "{text}", details) from None

    @classmethod
    def keys_for(cls, data: Any) -> list[str]:
        """The keys that a mapping for this section may have."""
        return sorted(cls.model_fields)


class Component(Section):
    """A section that YAML chooses by ``type:``.

    A family (rewards, sources...) is a subclass with its own ``registry``; a field annotated with
    the family accepts any registered member.
    """

    registry: ClassVar[Registry]

    type: str = ""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        schema = handler(source)
        if "registry" in cls.__dict__:  # the family itself: choose the member by its type
            return core_schema.no_info_plain_validator_function(
                cls._choose, serialization=core_schema.plain_serializer_function_ser_schema(_dump)
            )
        return schema

    @classmethod
    def _choose(cls, data: Any) -> Any:
        if isinstance(data, cls):
            return data
        kind = cls.registry.kind
        if not isinstance(data, Mapping):
            raise PydanticCustomError(
                "component",
                "{text}",
                {"text": f"a {kind} is a mapping with a 'type', got {shown(data)}", "at": ()},
            )
        name = data.get("type")
        if not isinstance(name, str):
            got = f"it is missing{_meant_as_type(data)}" if name is None else f"got {shown(name)}"
            raise PydanticCustomError(
                "component",
                "{text}",
                {
                    "text": f"a {kind} needs a type, {got}. "
                    f"Available: {', '.join(cls.registry.names())}",
                    "at": ("type",),
                },
            )
        try:
            member = cls.registry.get(name)
        except KeyError as error:
            raise PydanticCustomError(
                "component", "{text}", {"text": error.args[0], "at": ("type",)}
            ) from None
        return member.model_validate(dict(data))


def _meant_as_type(data: Mapping[str, Any]) -> str:
    """A hint where another key seems to hold the type's name, or nothing."""
    near = difflib.get_close_matches("type", [str(key).lower() for key in data], n=1, cutoff=0.5)
    keys = [key for key in data if str(key).lower() in ("name", "kind", "class", *near)]
    return f" (did you mean 'type' for {keys[0]!r}?)" if keys else ""


def _dump(component: Any) -> Any:
    return component.model_dump() if isinstance(component, BaseModel) else component


def build(cls: type[S], data: Any, *, path: str = "", source: str = "the configuration") -> S:
    """Build a section from plain data.

    Args:
        cls: the section, or a component family.
        data: what YAML or JSON gave.
        path: where ``data`` stands, put before every path in the errors.
        source: the file's name, for the errors' headline.

    Raises:
        ConfigError: with one line per mistake, all of them.
    """
    beyond = misfit(data)
    if beyond:
        where = f"{path}{beyond[0]}".removeprefix(".") or "the top level"
        raise ConfigError([f"{where}: {beyond[1]}"], source)
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        found = _problems(error.errors(include_url=False), cls, data, path)
        raise ConfigError(_one_each(found), source) from None


def _one_each(problems: Iterable[str]) -> list[str]:
    """One line for each path: a value that fits no member of a union is one mistake."""
    found: dict[str, list[str]] = {}
    for where, _, what in (problem.partition(": ") for problem in dict.fromkeys(problems)):
        found.setdefault(where, []).append(what)
    for said in found.values():
        got = f", got {said[-1].rpartition(', got ')[2]}"
        said[:-1] = [what.removesuffix(got) for what in said[:-1]]
    return [f"{where}: {', or '.join(said)}" for where, said in found.items()]


def _problems(errors: Iterable[Any], cls: type[Section], data: Any, path: str) -> Iterable[str]:
    for error in errors:
        context, kind = error.get("ctx", {}), error["type"]
        here, value = _walk(path, data, error["loc"])
        if kind == "nested":
            yield from _problems(context["errors"], context["cls"], value, here)
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


def _unknown_key(cls: type[Section], key: str, data: Any) -> str:
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
