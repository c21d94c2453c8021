"""Names that params.yaml may write in a ``type:`` key, and the classes behind them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pkgutil import iter_modules, walk_packages
from typing import Any

from pydantic_core import PydanticCustomError, core_schema

from mht.core.errors import shown
from mht.core.problems import did_you_mean, meant_as_type

# Where the built-in members of each kind register themselves: a module, a package with all its
# modules, or a module of each package of a package. They are imported on first use of the kind.
HOMES: dict[str, tuple[str, ...]] = {
    "advantage": ("mht.algorithms.ppo.parts.advantages",),
    "aggregation": ("mht.algorithms.ppo.parts.aggregations",),
    "algorithm": ("mht.algorithms.members",),
    "critic": ("mht.models.value.critics",),
    "head": (),
    "memory": ("mht.memory",),
    "mix": ("mht.algorithms.mixes",),
    "model": ("mht.fresh.scratch",),
    "policy_loss": ("mht.algorithms.ppo.parts.policy_losses",),
    "postprocess": ("mht.rewards",),
    "reward": ("mht.rewards", "mht.tasks.*.reward"),
    "source": ("mht.data.sources", "mht.tasks.*.source"),
}


class Registry:
    """The members of one kind of component, by name.

    Built-in members register themselves when their ``homes`` are imported, on first use. Installed
    packages add names through the entry point group ``mht.<kind>``; such a package is imported only
    when its name is used.

    Args:
        kind: what a member is, as messages say it.
        homes: names of the modules and packages that register the built-in members.
    """

    def __init__(self, kind: str, homes: Iterable[str] = ()):
        self.kind, self.homes = kind, tuple(homes)
        self._classes: dict[str, type[Any]] = {}
        self._complete = not self.homes

    def register(self, *names: str) -> Callable[[type[Any]], type[Any]]:
        """Decorate a class with its name and aliases.

        Raises:
            ValueError: another class has the name.
        """

        def add(cls: type[Any]) -> type[Any]:
            if not self._is_built_in(cls):
                self._load()  # so that a built-in name is refused where the class is defined
            for name in names:
                taken = self._classes.setdefault(name, cls)
                if taken is not cls:
                    raise ValueError(
                        f"{self.kind} {name!r} is already registered by "
                        f"{taken.__module__}.{taken.__qualname__}"
                    )
            return cls

        return add

    def names(self) -> list[str]:
        """Every name, plug-ins included, sorted."""
        return sorted({*self.registered(), *(p.name for p in self._plugins())})

    def registered(self) -> dict[str, type[Any]]:
        """Name to class for every registered member; plug-ins of entry points are left out."""
        self._load()
        return dict(self._classes)

    def built_in(self) -> dict[str, type[Any]]:
        """Name to class for the members of the homes."""
        return {name: cls for name, cls in self.registered().items() if self._is_built_in(cls)}

    def get(self, name: str) -> type[Any]:
        """The class behind a name.

        Raises:
            KeyError: no such name, or its plug-in does not load; the message says which.
        """
        registered = self.registered().get(name)
        plugins = [p for p in self._plugins() if p.name == name]
        if plugins and (registered or len(plugins) > 1):
            if registered is None or registered.__module__ != plugins[0].module:
                owners = ", ".join(p.value for p in plugins)
                raise KeyError(f"{self.kind} {name!r} is claimed more than once ({owners})")
            return registered
        if plugins:
            return self._load_plugin(plugins[0])
        if registered is None:
            names = self.names()
            raise KeyError(
                f"unknown {self.kind} {shown(name)}{did_you_mean(name, names)}. "
                f"Available: {', '.join(names)}"
            )
        return registered

    def choose(self, data: Any, default: str | None = None) -> Any:
        """The member that a mapping names in its ``type``, built from its other keys.

        Args:
            data: the mapping; a member is returned as it is.
            default: the name where the mapping has no ``type``; None requires one.

        Raises:
            PydanticCustomError: no such member; an option's mistake is a ``ValidationError``.
        """
        if getattr(type(data), "registry", None) is self:
            return data
        if not isinstance(data, Mapping):
            raise _refused(f"a {self.kind} is a mapping with a 'type', got {shown(data)}")
        name = data.get("type", default)
        if not isinstance(name, str):
            got = f"it is missing{meant_as_type(data)}" if name is None else f"got {shown(name)}"
            available = ", ".join(self.names())
            raise _refused(f"a {self.kind} needs a type, {got}. Available: {available}", "type")
        try:
            member = self.get(name)
        except KeyError as error:
            raise _refused(error.args[0], "type") from None
        return member.model_validate({**data, "type": name})

    def _load(self) -> None:
        if not self._complete:
            self._complete = True  # first, as a home may ask for names itself
            try:
                for home in self.homes:
                    for name in modules(home):
                        import_module(name)
            except BaseException:
                self._complete = False  # the next look-up fails as well, and knows no part of them
                raise

    def _is_built_in(self, cls: type[Any]) -> bool:
        name = cls.__module__
        return any(name.startswith(f"{h}.") or fnmatchcase(name, h) for h in self.homes)

    def _load_plugin(self, plugin: Any) -> type[Any]:
        try:
            return plugin.load()
        except (ImportError, AttributeError) as error:
            raise KeyError(
                f"{self.kind} {plugin.name!r} comes from plug-in {plugin.value}, "
                f"which does not load: {error}"
            ) from error

    def _plugins(self) -> Iterable[Any]:
        return _installed(f"mht.{self.kind}", tuple(sys.path))


def modules(home: str) -> Iterator[str]:
    """The modules that a home of `HOMES` stands for."""
    above, star, inner = home.partition(".*.")
    folders = getattr(import_module(above), "__path__", ())
    if star:
        names = (f"{above}.{found.name}.{inner}" for found in iter_modules(folders) if found.ispkg)
        yield from (name for name in names if find_spec(name))
    else:
        yield home
        yield from (found.name for found in walk_packages(folders, f"{home}."))


@lru_cache
def registry(kind: str) -> Registry:
    """The one registry of a kind in `HOMES`."""
    return Registry(kind, HOMES[kind])


class Chosen:
    """Marks a field whose value is a member of a kind: ``Annotated[Any, Chosen("reward")]``.

    A section so marked needs no import of the kind's classes; they load when a value is checked.

    Args:
        kind: of component.
        default: the member that a mapping without a ``type`` stands for; None requires one.
    """

    def __init__(self, kind: str, default: str | None = None):
        self.kind, self.default = kind, default

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chosen) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((self.kind, self.default))

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return member_schema(registry(self.kind), self.default)


def member_schema(members: Registry, default: str | None = None) -> Any:
    """Pydantic's schema of a field that takes any member."""
    return core_schema.no_info_plain_validator_function(
        lambda data: members.choose(data, default),
        serialization=core_schema.plain_serializer_function_ser_schema(_dump),
    )


def _dump(member: Any) -> Any:
    return member.model_dump() if hasattr(member, "model_dump") else member


def _refused(text: str, *at: str) -> PydanticCustomError:
    return PydanticCustomError("component", "{text}", {"text": text, "at": at})


@lru_cache
def _installed(group: str, path: tuple[str, ...]) -> Iterable[Any]:
    """The entry points of a group; reading every package's takes 15 ms, so once per ``path``."""
    return entry_points(group=group)
