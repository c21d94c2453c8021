"""What stands behind ``--reward``: a type, a spec as YAML or JSON, or a file with one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mht.core.errors import ConfigError, UserError
from mht.core.plain import parse_json, parse_yaml, read_text
from mht.rewards import Reward, make_reward

FILES = (".json", ".yaml", ".yml")


def read_reward(spec: str | Path) -> Reward:
    """The reward that a spec stands for.

    Args:
        spec: a type's name, a spec as YAML or JSON, or a file. The file holds the spec itself, one
            under ``reward``, or a whole params.yaml with a ``ppo.reward``.

    Raises:
        UserError: no such file, or neither YAML nor JSON, or no reward in it.
        ConfigError: with every mistake in it and its path.
    """
    path = Path(spec)
    if path.suffix in FILES and "{" not in str(spec):
        return _of_file(path)
    data = _parsed(str(spec), "--reward", "YAML")
    return make_reward({"type": data} if isinstance(data, str) else data, "--reward")


def _of_file(path: Path) -> Reward:
    if not path.is_file():
        raise UserError(f"--reward: no such file {str(path)!r}")
    try:
        text = read_text(path)
    except ConfigError as error:
        raise UserError(f"{path}: {error.problems[0]}") from None
    data, where = _chosen(
        _parsed(text, str(path), "JSON" if path.suffix == ".json" else "YAML"), path
    )
    try:
        return make_reward(data, where)
    except ConfigError as error:
        raise ConfigError(error.problems, str(path)) from None


def _chosen(data: Any, path: Path) -> tuple[Any, str]:
    """The spec in a file, and where it stands there."""
    if not isinstance(data, Mapping) or "type" in data or "REWARD" in data:
        return data, "reward"
    ppo = data.get("ppo")
    if isinstance(ppo, Mapping) and ppo.get("reward"):
        return ppo["reward"], "ppo.reward"
    if "reward" in data:
        return data["reward"], "reward"
    keys = ", ".join(map(str, data)) or "nothing"
    raise UserError(f"{path}: has no reward: needs a type, reward or ppo.reward, got {keys}")


def _parsed(text: str, where: str, kind: str) -> Any:
    try:
        return parse_json(text, where) if kind == "JSON" else parse_yaml(text, where)
    except ConfigError as error:
        raise UserError(f"{where}: not {kind}: {error.problems[0]}") from None
