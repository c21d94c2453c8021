"""Finds names in the settings that do not exist: models, devices, metrics, labels.

`mht check` runs before `dvc repro` removes the outputs of the last run. It does not use the
network, so only the form of a hub model's name is checked.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mht.config import Config
from mht.config.fresh import FreshModel
from mht.config.variants import loops_of
from mht.core.bounds import LONGEST_NAME
from mht.core.component import did_you_mean
from mht.core.errors import ModelError, shown
from mht.evaluation.metrics import METRICS
from mht.rewards import Reward
from mht.rewards.composed.composite import Composite
from mht.rewards.learned.classifier import LabelReward

BUNDLED = ("smollm2-135m-instruct", "all-MiniLM-L6-v2")
HUB_NAME = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")
REWARD_MODEL, ENCODER = "models/reward_model", "data/raw/encoder"
NO_ENCODER = "{} is reward_model.encoder, which is null: name one there, such as 'all-MiniLM-L6-v2'"
ALWAYS = {"p_positive", "repetition", "distinct_1", "distinct_2", "distinct_3"}
WITH_START, WITH_ENCODER = "kl_to_sft_nats", "bertscore"


def names(config: Config) -> Iterator[str]:
    """One ``path: message`` line for each name that does not exist."""
    yield from _model("model.name", config.model.name)
    yield from _encoder(config)
    yield from _device(config.base.device)
    yield from _metrics(config)
    for path, reward in rewards_of(config).items():
        yield from _reward_models(path, reward, config)
        yield from _labels(path, reward, config)


def _encoder(config: Config) -> Iterator[str]:
    if config.reward_model.encoder is not None:
        yield from _model("reward_model.encoder", config.reward_model.encoder)
        return
    if config.data.labels is not None:
        what = f"is null, but the reward model starts from it: name one, such as {BUNDLED[1]!r}"
        yield f"reward_model.encoder: {what}, or set data.labels=null"
    name = config.evaluate.bertscore_model
    if name is not None and Path(name).is_relative_to(ENCODER):
        yield f"evaluate.bertscore_model: {NO_ENCODER.format(shown(name))}, or null here"


def _model(path: str, name: str | FreshModel) -> Iterator[str]:
    if isinstance(name, FreshModel):
        return
    folder = Path(name).expanduser()
    if name and is_folder(folder):
        if not (folder / "config.json").is_file():
            yield f"{path}: the folder {shown(name)} is no model: it has no config.json"
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        yield f"{path}: there is no folder {shown(name)}"
    elif not HUB_NAME.fullmatch(name) or ".." in name or "--" in name:
        what = "is neither a folder here nor a name that a hub model can have"
        yield f"{path}: {shown(name)} {what}"


def doubtful(config: Config) -> Iterator[str]:
    """One line for each name of a hub model that nearly equals a bundled model's."""
    wanted = {"model.name": config.model.name, "reward_model.encoder": config.reward_model.encoder}
    for path, name in wanted.items():
        if isinstance(name, str) and "/" not in name and name not in BUNDLED:
            close = difflib.get_close_matches(name[:LONGEST_NAME], BUNDLED, n=1, cutoff=0.8)
            if close and not is_folder(Path(name)):
                yield f"{path}: {shown(name)} is looked for on the hub; {close[0]!r} is bundled"


def _reward_models(path: str, reward: Reward, config: Config) -> Iterator[str]:
    """One line for each folder that a reward reads and that neither exists nor will be made."""
    no_labels, no_encoder = config.data.labels is None, config.reward_model.encoder is None
    for place, part in _parts(path, reward):
        for name in part.models():
            if no_labels and Path(name).is_relative_to(REWARD_MODEL):
                yield f"{place}: {shown(name)} learns from data.labels, which is null: set a source"
            if no_encoder and Path(name).is_relative_to(ENCODER):
                yield f"{place}: {NO_ENCODER.format(shown(name))}"
            is_path = name.startswith((".", "/", "~")) or name.partition("@")[0].count("/") > 1
            if is_path and not _is_made(name) and not Path(name).expanduser().exists():
                yield f"{place}: there is no folder {shown(name)}"


def _is_made(name: str) -> bool:
    """Whether a path is in a folder that the pipeline fills."""
    return Path(name).parts[:1] in (("models",), ("data",))


def is_folder(path: Path) -> bool:
    """Whether the folder exists; False for a name that the file system refuses."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _device(name: str) -> Iterator[str]:
    """One line if the device is missing; torch is loaded only if the settings name one."""
    if name in ("auto", "cpu"):
        return
    from mht.models.loading import resolve_device

    try:
        device = resolve_device(name)
    except ModelError as error:
        yield str(error)
        return
    if device.type == "meta":
        yield f"base.device: {name!r} holds no numbers; try 'auto'"


# -- metrics -----------------------------------------------------------------------------------


def _metrics(config: Config) -> Iterator[str]:
    wanted = {f"benchmark.metrics[{i}]": m for i, m in enumerate(config.benchmark.metrics)}
    guard = config.benchmark.guard
    judges = guard.judges if guard else []
    wanted |= {f"benchmark.guard.judges[{i}]": m for i, m in enumerate(judges)}
    if not config.benchmark.metrics:
        yield "benchmark.metrics: is empty: name at least one, such as p_positive"
    known = known_metrics(config)
    for path, name in wanted.items():
        if name not in known and not _may_be(name, config.ppo.reward):
            hint = did_you_mean(name, known)
            what = f"no such metric {shown(name)}{hint}"
            yield f"{path}: {what}. Available: {', '.join(sorted(known))}"


def known_metrics(config: Config) -> set[str]:
    """The metrics that evaluation measures with these settings on data with targets."""
    known = set(METRICS) | ALWAYS | {f"judge/{name}" for name in config.evaluate.judges}
    if config.evaluate.kl_to is None:
        known -= {WITH_START}
    if config.evaluate.bertscore_model is None:
        known -= {WITH_ENCODER}
    return known | (set(_nodes(config.ppo.reward, "reward")) if config.ppo.reward else set())


def _nodes(reward: Reward, name: str) -> Iterator[str]:
    yield name
    if reward.scale or reward.invert or reward.postprocess:
        yield f"{name}/post"
    if reward.on_error != "stop":
        yield f"{name}/failed"
    for key, child in reward.children().items():
        yield from _nodes(child, f"{name}/{key}")


def _may_be(name: str, reward: Reward | None) -> bool:
    """Whether a reward that adds its own figures, such as a mixture, may give the metric."""
    if reward is None or not name.startswith("reward/"):
        return False
    plain = (Reward._raw, Composite._raw)
    return any(type(part)._raw not in plain for _, part in _parts("", reward))


def _parts(path: str, reward: Reward) -> Iterator[tuple[str, Reward]]:
    yield path, reward
    for key, child in children_of(reward):
        yield from _parts(f"{path}.{key}", child)


def children_of(reward: Reward) -> Iterator[tuple[str, Reward]]:
    """The components of a reward with their keys in the settings."""
    for name in type(reward).model_fields:
        value = getattr(reward, name)
        if isinstance(value, Reward):
            yield name, value
        elif isinstance(value, dict):
            yield from ((f"{name}.{k}", v) for k, v in value.items() if isinstance(v, Reward))
        elif isinstance(value, list):
            yield from ((f"{name}[{i}]", v) for i, v in enumerate(value) if isinstance(v, Reward))


# -- labels ------------------------------------------------------------------------------------


def rewards_of(config: Config) -> dict[str, Reward]:
    """Every reward in the settings, by its path."""
    found = {"ppo.reward": config.ppo.reward, "evaluate.judge": config.evaluate.judge}
    found |= {f"evaluate.judges.{name}": judge for name, judge in config.evaluate.judges.items()}
    found |= {f"{path}.reward": loop.reward for path, loop in loops_of(config).items()}
    return {path: reward for path, reward in found.items() if reward is not None}


def _labels(path: str, reward: Reward, config: Config) -> Iterator[str]:
    for place, part in _parts(path, reward):
        if not isinstance(part, LabelReward) or part.labels is not None:
            continue
        there = _labels_of(part.model, config)
        missing = [target for target in part.targets if there and not part.has(target, there)]
        if missing:
            what = f"{shown(part.model)} has no label {shown(missing[0])}"
            yield f"{place}.target: {what}: set one of {', '.join(there)}"


def _labels_of(model: str, config: Config) -> list[str]:
    """The labels of a folder's classifier, or of the one that the pipeline trains on ratings."""
    if model == REWARD_MODEL and config.data.labels and config.data.labels.type == "reviews":
        return ["negative", "positive"]
    if _is_made(model):
        return []  # of another run, maybe
    try:
        found: Any = json.loads((Path(model).expanduser() / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    labels = found.get("id2label") if isinstance(found, Mapping) else None
    return [str(label) for label in labels.values()] if isinstance(labels, Mapping) else []
