"""Checks that DVC reruns a stage when a file named in the settings changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mht.config import Config, HybridConfig
from mht.core.errors import ConfigError
from mht.rewards import Reward

FOLDER = "rewards"  # a dep of every stage that scores
READ = ("file", "corpus", "model")  # the options of rewards that may be a path


def files_of_training(settings: HybridConfig, section: str) -> dict[str, Path]:
    """The files and folders that a training section reads, by key of params.yaml.

    Args:
        settings: the section.
        section: its name.
    """
    found = {
        f"{section}.references.{name}.model": Path(reference.model)
        for name, reference in settings.references.items()
        if Path(reference.model).is_dir()
    }
    if settings.memory.is_on and settings.memory.start:
        found[f"{section}.memory.start"] = Path(settings.memory.start)
    return {**found, **dict(_reward_files(settings.reward, f"{section}.reward"))}


def files_of_evaluation(config: Config) -> dict[str, Path]:
    """The files and folders that the stage evaluate reads, by key of params.yaml."""
    parts = {
        "ppo.reward": config.ppo.reward,
        "evaluate.judge": config.evaluate.judge,
        "evaluate.judges": config.evaluate.judges,
    }
    return {key: path for name, part in parts.items() for key, path in _reward_files(part, name)}


def check_watched(read: Mapping[str, Path], deps: Iterable[str]) -> None:
    """Refuse settings whose files DVC does not watch.

    Args:
        read: key of params.yaml to the file or folder.
        deps: the stage's dependencies; empty if DVC did not start it.

    Raises:
        ConfigError: a change of one of the files would not rerun the stage.
    """
    problems = list(_unwatched(read, deps))
    if problems:
        raise ConfigError(problems, "params.yaml")


def problems(config: Config) -> list[str]:
    """One line for each file that a stage of dvc.yaml reads and DVC does not watch."""
    read = {}
    for name, variant in config.variants.items():
        read[f"evaluate@{name}"] = files_of_evaluation(config)
        if variant.settings:
            read[f"ppo@{name}"] = files_of_training(variant.settings, variant.section)
    if not any(read.values()) or not Path("dvc.yaml").is_file():
        return []
    deps = _deps()
    lines = (_unwatched(files, deps.get(stage, ())) for stage, files in read.items())
    return list(dict.fromkeys(line for of_stage in lines for line in of_stage))


def _deps() -> Mapping[str, Iterable[str]]:
    from dvc.exceptions import DvcException

    from mht.tracking.content.pipeline import read_pipeline

    try:
        return {name: stage.deps for name, stage in read_pipeline().stages.items()}
    except DvcException:  # no DVC project, or a dvc.yaml that DVC itself will refuse
        return {}


def _unwatched(read: Mapping[str, Path], deps: Iterable[str]) -> Iterator[str]:
    watched = {Path(dep).resolve() for dep in deps}
    for key, path in read.items():
        if watched and not {path.resolve(), *path.resolve().parents} & watched:
            hint = f"move it into {FOLDER}/, or " if path.is_file() else ""
            yield (
                f"{key}: DVC does not watch {path} for this stage, so a change of it would go "
                f"unseen: {hint}add it to the stage's deps in dvc.yaml"
            )


def _reward_files(part: Any, key: str) -> Iterator[tuple[str, Path]]:
    """The files and folders that rewards below a key read, by the keys of their options."""
    if isinstance(part, Reward):
        for name in type(part).model_fields:
            value = getattr(part, name)
            if name in READ and isinstance(value, str) and Path(value).exists():
                yield f"{key}.{name}", Path(value)
            yield from _reward_files(value, f"{key}.{name}")
    elif isinstance(part, Mapping):
        for name, value in part.items():
            yield from _reward_files(value, f"{key}.{name}")
    elif isinstance(part, list | tuple):
        for index, value in enumerate(part):
            yield from _reward_files(value, f"{key}[{index}]")
