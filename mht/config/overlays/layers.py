"""Settings on top of settings: plain mappings merged key by key."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from mht.config.overlays.remarks import replace_own_remark, replace_remark


def lay_over(settings: MutableMapping[str, Any], overlay: Mapping[str, Any]) -> None:
    """Put the overlay's settings into ``settings``, in place.

    Sections are merged key by key. A comment behind a value that changes is replaced by the
    overlay's, or goes. What has a ``type`` (a source, a reward, a schedule) is
    replaced as a whole, since its keys belong to its type.

    >>> settings = {"ppo": {"lr": 1.0, "cycles": 2}, "data": {"source": {"type": "a", "x": 1}}}
    >>> lay_over(settings, {"ppo": {"lr": 2.0}, "data": {"source": {"type": "b"}}})
    >>> settings
    {'ppo': {'lr': 2.0, 'cycles': 2}, 'data': {'source': {'type': 'b'}}}
    """
    for key, value in overlay.items():
        inner = settings.get(key)
        is_part = isinstance(value, Mapping) and "type" not in value
        if is_part and isinstance(inner, MutableMapping):
            replace_own_remark(settings, overlay, key)
            lay_over(inner, value)
        elif key not in settings or inner != value:
            settings[key] = value
            replace_remark(settings, overlay, key)


def set_path(settings: MutableMapping[str, Any], path: str, value: Any) -> None:
    """Put a value at a dotted path, in place; sections that are missing are made.

    >>> settings = {"ppo": {"lr": 1.0}}
    >>> set_path(settings, "ppo.kl_control.type", "fixed")
    >>> settings
    {'ppo': {'lr': 1.0, 'kl_control': {'type': 'fixed'}}}
    """
    *above, key = path.split(".")
    for name in above:
        inner = settings.get(name)
        if not isinstance(inner, MutableMapping):
            settings[name] = inner = {}
        settings = inner
    if key not in settings or settings[key] != value:
        settings[key] = value
        replace_remark(settings, {}, key)
