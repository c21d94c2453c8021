"""Sections whose ``type`` says which of the other keys they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import model_serializer, model_validator

from mht.core.component import Section, refuse


class Choice(Section):
    """A section with a ``type`` that says which of the other keys it takes; null is the default.

    Attributes:
        choices: for each type its keys, with their defaults.
    """

    choices: ClassVar[Mapping[str, Mapping[str, Any]]]

    type: str

    @property
    def options(self) -> dict[str, Any]:
        """The keys that the type takes, with what was given or the default."""
        defaults = self.choices[self.type]
        return {k: v if getattr(self, k) is None else getattr(self, k) for k, v in defaults.items()}

    @model_validator(mode="after")
    def _takes_what_is_set(self) -> Self:
        takes = self.choices[self.type]
        has = f"it has {', '.join(sorted(takes))}" if takes else "it has none"
        refuse(
            (key, f"{self.type} has no option {key!r}; {has}")
            for key in type(self).model_fields
            if key != "type" and key not in takes and getattr(self, key) is not None
        )
        return self

    @model_serializer
    def _what_is_used(self) -> dict[str, Any]:
        return {"type": self.type, **self.options}

    @classmethod
    def keys_for(cls, data: Any) -> list[str]:
        """``type``, and what the data's type takes."""
        kind = str(data.get("type", cls.model_fields["type"].default))
        return sorted({"type", *cls.choices.get(kind, cls.model_fields)})
