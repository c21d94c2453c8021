"""Comments at the ends of lines of params.yaml, which leave with the values they speak of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EOL = 2  # where ruamel.yaml keeps a key's comment among its tokens


def replace_remark(settings: Any, overlay: Any, key: str) -> None:
    """Put the overlay's comment at a key in place of the one there, or take that one away.

    Lines of comments below the key stay. Mappings without comments stay as they are.

    Args:
        settings: a mapping of ruamel.yaml, changed in place.
        overlay: the mapping with the new value.
        key: of both.
    """
    if not hasattr(settings, "ca"):
        return
    said, token = _first_line(_token(overlay, key)), _token(settings, key)
    if token is not None:
        _, newline, below = token.value.partition("\n")
        token.value = f"{said}{newline}{below}"
    elif said:
        settings.yaml_add_eol_comment(said, key)


def replace_own_remark(settings: Any, overlay: Any, key: str) -> None:
    """The same for a section that is merged: its comment stays if the overlay has none."""
    if _first_line(_token(overlay, key)):
        replace_remark(settings, overlay, key)


def _token(mapping: Any, key: str) -> Any:
    tokens: Mapping[str, Any] = mapping.ca.items if hasattr(mapping, "ca") else {}
    found = tokens.get(key)
    return found[EOL] if found and len(found) > EOL else None


def _first_line(token: Any) -> str:
    line = token.value.partition("\n")[0] if token is not None else ""
    return line if line.startswith("#") else ""
