"""What is searched: checked against the settings before anything runs, and laid over them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from mht.checks.preflight import problems as unserved
from mht.config import Config, TuneConfig
from mht.config.overlays.overlay import set_path
from mht.core.component import build, did_you_mean
from mht.core.errors import ConfigError
from mht.tracking.content.pipeline import Pipeline

SAMPLING = ("ppo.reward", "ppo.temperature", "ppo.response_tokens")  # what its looks depend on


def tried_variant(config: Config) -> str:
    """The variant that a trial trains: a row of ``baselines`` from the SFT model that follows ppo.

    The benchmark's subject if it is one, else the first.

    Raises:
        ConfigError: there is none.
    """
    rows = config.baselines.items()
    found = [name for name, row in rows if row.like == "ppo" and row.start == "sft"]
    if not found:
        problem = "no row follows ppo from the SFT model: add one, such as {start: sft, like: ppo}"
        raise ConfigError([f"baselines: {problem}"], "the search")
    subject = config.benchmark.subject
    return subject if subject in found else found[0]


def tried_stage(config: Config) -> str:
    """The stage that trains it."""
    return f"ppo@{tried_variant(config)}"


def with_values(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the settings with each value at its path."""
    changed = copy.deepcopy(dict(settings))
    for path, value in values.items():
        set_path(changed, path, value)
    return changed


def check_space(
    settings: Mapping[str, Any], config: Config, pipeline: Pipeline, *, by_dvc: bool
) -> None:
    """Refuse a search that can't be right.

    Args:
        settings: plain, as the files have them.
        config: the same, checked.
        pipeline: knows which stage reads which setting.
        by_dvc: whether DVC runs the stages before the hybrid's for every trial.

    Raises:
        ConfigError: a path is none, an end or choice is no valid setting, or the path decides
            nothing of a trial; with every mistake.
    """
    found, stage = list(_general(config)), tried_stage(config)
    for path in config.tune.space:
        wrong = list(_ends(settings, config.tune, path))
        found += wrong or list(_place(path, pipeline, stage, by_dvc=by_dvc))
    if found:
        raise ConfigError(found, "the search")


def _general(config: Config) -> Iterator[str]:
    if not config.tune.space:
        yield "tune.space: is empty: name a setting, such as ppo.lr: {type: float, low: ...}"
    if config.base.accelerate:
        yield "base.accelerate: a search trains in one process: set null"
    if not config.ppo.eval_every:
        yield "ppo.eval_every: a search needs looks at the validation prompts: set 1"
    known = {f"validation/{name}" for name in ("score", "kl_nats", "length_tokens", "sft_loss")}
    for name in config.tune.metric.keys() - known:
        hint = did_you_mean(name, known)
        yield f"tune.metric: no such figure {name!r}{hint}. Available: {', '.join(sorted(known))}"


def _ends(settings: Mapping[str, Any], tune: TuneConfig, path: str) -> Iterator[str]:
    """What is wrong with the settings when this one has its least, greatest or chosen value."""
    for end, value in tune.space[path].ends.items():
        where = f"tune.space.{path}.{end}"
        try:
            changed = build(Config, with_values(settings, {path: value}))
        except ConfigError as error:
            yield from (f"{where}: {problem}" for problem in error.problems)
        else:
            yield from (f"{where}: {problem}" for problem in unserved(changed))


def _place(path: str, pipeline: Pipeline, stage: str, *, by_dvc: bool) -> Iterator[str]:
    """A path that a trial's training reads, and without DVC nothing before it."""
    where = f"tune.space.{path}"
    before = readers(path, pipeline, *pipeline.upstream(stage))
    if before and not by_dvc:
        names = ", ".join(before)
        yield f"{where}: is read before {stage}, by {names}: only `mht tune --dvc` runs that anew"
    elif not before and not readers(path, pipeline, stage):
        yield f"{where}: no stage up to {stage} reads it, so no trial would differ"
    elif by_dvc and any(_within(path, key) for key in SAMPLING):
        yield (
            f"{where}: decides how a trial is looked at, so that trials of --dvc could not be "
            "compared: search it without --dvc"
        )


def readers(path: str, pipeline: Pipeline, *stages: str) -> list[str]:
    """Those of the stages that read a setting, or a part of it."""
    return [
        name
        for name in stages
        if name in pipeline.stages
        and any(_within(path, key) or _within(key, path) for key in pipeline.read_by(name))
    ]


def _within(path: str, key: str) -> bool:
    return path == key or path.startswith(f"{key}.")
