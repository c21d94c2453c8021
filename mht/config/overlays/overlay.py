"""Experiments as overlays: files with only those settings in which they differ from params.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from mht.config import Config, read_yaml
from mht.config.overlays.layers import lay_over, set_path
from mht.core.component import build
from mht.core.errors import ConfigError
from mht.core.plain import read_text

TABLES = ("baselines", "untrained")  # whose rows an overlay removes by null


def layered(overlays: Sequence[str | Path], params: str | Path = "params.yaml") -> dict[str, Any]:
    """The plain settings of params.yaml with all overlays on top, the last uppermost."""
    settings = read_mapping(params)
    for overlay in overlays:
        lay_over(settings, read_mapping(overlay))
        drop_rows(settings)
    return settings


def drop_rows(settings: MutableMapping[str, Any]) -> None:
    """Take out the variants that an overlay has set to null, in place.

    >>> settings = {"baselines": {"a": {"start": "sft"}, "b": None}}
    >>> drop_rows(settings)
    >>> settings
    {'baselines': {'a': {'start': 'sft'}}}
    """
    for table in TABLES:
        rows = settings.get(table)
        if isinstance(rows, MutableMapping):
            for name in [name for name, row in rows.items() if row is None]:
                del rows[name]
            if not rows:
                settings[table] = {}  # a block without rows is no mapping in YAML


def load_experiment(
    overlay: str | Path | Sequence[str | Path], params: str | Path = "params.yaml"
) -> Config:
    """The settings of an experiment, checked: those of params.yaml with the overlay's on top.

    Args:
        overlay: a file, or several to lay over each other in order.
        params: the file below them.

    Raises:
        ConfigError: with every mistake and its path.
    """
    overlays = [overlay] if isinstance(overlay, str | Path) else list(overlay)
    source = " with ".join(map(str, [params, *overlays]))
    return build(Config, layered(overlays, params), source=source)


def apply_experiment(
    overlay: str | Path | Sequence[str | Path], params: str | Path = "params.yaml"
) -> None:
    """Write an experiment's settings into params.yaml, whose comments stay.

    Args:
        overlay: a file, or several to lay over each other in order.
        params: the file to change.

    Raises:
        ConfigError: with every mistake and its path; nothing is written then.
    """
    from ruamel.yaml import YAML

    load_experiment(overlay, params)
    overlays = [overlay] if isinstance(overlay, str | Path) else list(overlay)

    def change(settings: MutableMapping[str, Any]) -> None:
        for overlay in overlays:
            lay_over(settings, YAML().load(read_text(overlay)))
            drop_rows(settings)

    _rewrite(params, change)


def apply_values(values: Mapping[str, Any], params: str | Path = "params.yaml") -> None:
    """Write values, each at its dotted path, into params.yaml, whose comments stay.

    Raises:
        ConfigError: with every mistake and its path; nothing is written then.
    """

    def change(settings: MutableMapping[str, Any]) -> None:
        for path, value in values.items():
            set_path(settings, path, value)

    plain = read_mapping(params)
    change(plain)
    build(Config, plain, source=f"{params} with {', '.join(values)}")
    _rewrite(params, change)


def _rewrite(params: str | Path, change: Callable[[MutableMapping[str, Any]], None]) -> None:
    """Change a YAML file's data in place, its comments kept."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096  # lines stay as long as they are
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), _null)
    file = Path(params)
    settings = yaml.load(read_text(file))
    change(settings)
    with file.open("w", encoding="utf-8", newline="\n") as out:
        yaml.dump(settings, out)


def _null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def task_of(params: str | Path = "params.yaml") -> str:
    """The type of `data.source`, which is the task's name where it is a task's source."""
    data = read_mapping(params).get("data")
    source = data.get("source") if isinstance(data, Mapping) else None
    return str(source.get("type", "")) if isinstance(source, Mapping) else ""


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping of sections that a YAML file holds.

    Raises:
        ConfigError: it is not there, not YAML, or holds something else.
    """
    data = read_yaml(path)
    if not isinstance(data, Mapping):
        raise ConfigError(["the file must hold a mapping of sections"], str(path))
    return dict(data)
