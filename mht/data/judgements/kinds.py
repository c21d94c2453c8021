"""The kinds of judgement that a source's rows may hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal["ratings", "labels", "preferences"]
# the key of a source's row that makes it one of the kind; the first that is there decides
KEYS: dict[Kind, str] = {"preferences": "rejected", "ratings": "rating", "labels": "label"}


def kind_of(row: Mapping[str, Any]) -> Kind | None:
    """The kind of judgement that a source's row holds, if it holds one.

    >>> kind_of({"text": "fine", "rating": 2.0}), kind_of({"text": "fine"})
    ('ratings', None)
    """
    return next((kind for kind, key in KEYS.items() if key in row), None)
