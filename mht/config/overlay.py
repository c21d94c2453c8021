"""Experiments as overlays: files with only those settings in which they differ from params.yaml."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from mht.component import build
from mht.config import Config, read_yaml
from mht.errors import ConfigError


def lay_over(settings: MutableMapping[str, Any], overlay: Mapping[str, Any]) -> None:
    """Put the overlay's settings into ``settings``, in place.

    Sections are merged key by key. What has a ``type`` (a source, a reward, a schedule) is
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
            lay_over(inner, value)
        else:
            settings[key] = value


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
    settings = read_mapping(params)
    for file in overlays:
        lay_over(settings, read_mapping(file))
    return build(Config, settings, source=" with ".join(map(str, [params, *overlays])))


def apply_experiment(overlay: str | Path, params: str | Path = "params.yaml") -> None:
    """Write an experiment's settings into params.yaml, whose comments stay.

    Raises:
        ConfigError: with every mistake and its path; nothing is written then.
    """
    from ruamel.yaml import YAML

    load_experiment(overlay, params)
    yaml = YAML()
    yaml.width = 4096  # lines stay as long as they are
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), _null)
    file = Path(params)
    settings = yaml.load(file.read_text(encoding="utf-8"))
    lay_over(settings, yaml.load(Path(overlay).read_text(encoding="utf-8")))
    with file.open("w", encoding="utf-8", newline="\n") as out:
        yaml.dump(settings, out)


def _null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping of sections that a YAML file holds.

    Raises:
        ConfigError: it is not there, not YAML, or holds something else.
    """
    data = read_yaml(path)
    if not isinstance(data, Mapping):
        raise ConfigError(["the file must hold a mapping of sections"], str(path))
    return dict(data)
