"""The face of every data source, and the rules for the rows it gives."""

from __future__ import annotations

from typing import Any, ClassVar

from mht.core.component import Component, Registry, registry
from mht.core.errors import DataError

REGISTRY = registry("source")
source = REGISTRY.register


def asset_entry(
    name: str, source: str, licence: str, *, version: str = "", sha256: str = ""
) -> dict[str, Any]:
    """What ``assets.json`` says about a model or a source of data.

    Args:
        name: of it.
        source: where it comes from, in words.
        licence: its own.
        version: of it; "" where it has none.
        sha256: of its file or folder; "" where it has none.
    """
    return {
        "name": name,
        "version": version,
        "sha256": sha256,
        "licence": licence,
        "source": source,
    }


class OptionError(DataError):
    """An option of a source points at something that is not there.

    Args:
        option: its name as written in params.yaml below the source, such as ``columns.text``.
        message: what is wrong, what was got, what to do.
    """

    def __init__(self, option: str, message: str):
        self.option, self.message = option, message
        super().__init__(f"{option}: {message}")

    def below(self, path: str) -> OptionError:
        """The same error with the source's own place in front, such as ``data.source``."""
        return OptionError(f"{path}.{self.option}", self.message)


class Source(Component):
    """Where rows of text come from; chosen by ``type:`` in ``data.source`` and ``data.labels``."""

    registry: ClassVar[Registry] = REGISTRY

    def rows(self) -> list[dict[str, Any]]:
        """Every row, in the source's own order.

        Returns:
            ``{"text"}`` or ``{"prompt", "target"}``, and ``"item"`` for the other columns. Where
            the source has them: ``"rating"`` (a float in [-4, 4], positive = good), ``"label"`` (a
            class's name) or ``"rejected"`` (an answer worse than the target). Where the prompt ends
            a conversation, ``item["turns"]`` has the turns before it, each ``{"role", "content"}``.

        Raises:
            DataError: the data are missing or not what they should be, in one line.
        """
        raise NotImplementedError

    def asset(self) -> dict[str, Any]:
        """See `asset_entry`."""
        source = f"the source {self.type!r} of a plug-in"
        return asset_entry(self.type, source, "see its documentation")
