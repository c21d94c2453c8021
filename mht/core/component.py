"""The one mechanism by which plain data (YAML, JSON) becomes typed objects.

A `Section` is a frozen pydantic model that refuses unknown keys. A `Component` is a section chosen
by its ``type:`` key from a `Registry`; its fields are its options. `build` reports every mistake at
once, each with the path to type into ``dvc exp run -S``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from mht.core.errors import LISTED, ConfigError
from mht.core.plain import misfit
from mht.core.problems import did_you_mean, one_each, problems, refuse
from mht.core.registry import Chosen, Registry, member_schema, registry

__all__ = [
    "Chosen",
    "Component",
    "Registry",
    "Section",
    "build",
    "checked_with_members",
    "did_you_mean",
    "refuse",
    "registry",
]

S = TypeVar("S", bound="Section")


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
            return cls.checked(data, handler)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            text = "; ".join(one_each(islice(problems(errors, cls, data, ""), LISTED)))
            details = {"cls": cls, "errors": errors, "text": text}
            raise PydanticCustomError("nested", "{text}", details) from None

    @classmethod
    def checked(cls, data: Any, handler: Any) -> Any:
        """Pydantic's own check of the data; a section with other keys adds theirs."""
        return handler(data)

    @classmethod
    def keys_for(cls, data: Any) -> list[str]:
        """The keys that a mapping for this section may have."""
        return sorted(cls.model_fields)


class Component(Section):
    """A section that YAML chooses by ``type:``.

    A family (rewards, sources...) is a subclass with its own ``registry``; a field annotated with
    the family accepts any registered member. So does one annotated with `Chosen`.
    """

    registry: ClassVar[Registry]

    type: str = ""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        schema = handler(source)
        if "registry" in cls.__dict__:  # the family itself: choose the member by its type
            return member_schema(cls.registry)
        return schema


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
        found = problems(error.errors(include_url=False), cls, data, path)
        raise ConfigError(one_each(found), source) from None


def checked_with_members(cls: type[Section], members: Registry, data: Any, handler: Any) -> Any:
    """A section whose keys beside its fields are members, each with the member's own options.

    Args:
        cls: the section; it allows extra keys.
        members: classes with a section ``Options``.
        data: what YAML or JSON gave.
        handler: pydantic's check.

    Raises:
        ValidationError: with every mistake, in the fields and in the members' options.
    """
    given = dict(data) if isinstance(data, Mapping) else {}
    made, errors = {}, []
    for name in [key for key in given if key not in cls.model_fields]:
        try:
            made[name] = members.get(name).Options.model_validate(given[name])
        except KeyError:
            errors.append(InitErrorDetails(type="extra_forbidden", loc=(name,), input=given[name]))
        except ValidationError as error:
            errors += _details(error, name)
    try:
        found = handler(given | made if made else data)
    except ValidationError as error:
        errors += _details(error)
    if errors:
        raise ValidationError.from_exception_data(cls.__name__, errors)
    return found


def _details(error: ValidationError, *above: str) -> Iterator[InitErrorDetails]:
    """What pydantic needs to raise the same errors again, below some keys."""
    for one in error.errors(include_url=False):
        kind = PydanticCustomError(
            one["type"], "{text}", {"text": one["msg"], **one.get("ctx", {})}
        )
        yield InitErrorDetails(type=kind, loc=(*above, *one["loc"]), input=one["input"])
