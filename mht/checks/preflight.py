"""Checks the settings against the models and this machine before anything loads.

A model's shape comes from the config.json of its folder, or of the copy that `fetch` made of a hub
model. A model without that file is not checked. The shapes of bundled models are constants here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mht.checks.names import children_of, doubtful, is_folder
from mht.checks.sizes import sizes
from mht.config import Config, HybridConfig, SFTConfig
from mht.config.fresh import FreshModel, Shape
from mht.config.optim import PACKAGES
from mht.config.variants import loops_of
from mht.core.errors import UserError
from mht.rewards import Reward

BUNDLED = {"smollm2-135m-instruct": Shape(30, 8192), "all-MiniLM-L6-v2": Shape(6, 512)}
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx")
ASSETS = Path("data/raw/assets.json")


def check(config: Config) -> None:
    """Refuse settings that the model or the machine can't serve.

    Raises:
        UserError: with one line for each problem, its path first.
    """
    found = list(problems(config))
    if found:
        raise UserError("\n".join(found))


def problems(config: Config) -> Iterator[str]:
    """One ``path: message`` line for each setting that can't be served."""
    yield from _layers(
        "model.num_layers_unfrozen", config.model.num_layers_unfrozen, config.model.name, 1
    )
    reward_model = config.reward_model
    if reward_model.encoder is not None:
        path = "reward_model.num_layers_unfrozen"
        yield from _layers(path, reward_model.num_layers_unfrozen, reward_model.encoder, 0)
    yield from _lengths(config)
    yield from _dtype(config)
    for path, section in _trained(config).items():
        yield from _package(f"{path}.optimizer.type", section.optimizer.type)
        if isinstance(section, HybridConfig):
            yield from _memory(f"{path}.memory.start", section, path.rpartition(".")[2])


def _trained(config: Config) -> dict[str, SFTConfig | HybridConfig]:
    return {"sft": config.sft, **loops_of(config)}


def _layers(path: str, wanted: int | str, model: str | FreshModel, least: int) -> Iterator[str]:
    layers = shape_of(model).layers
    if layers is not None and isinstance(wanted, int) and wanted > layers:
        what = f"{wanted} does not fit the {layers} layers of {str(model)!r}"
        yield f"{path}: {what}; set {least} to {layers}, or 'all'"


def _lengths(config: Config) -> Iterator[str]:
    """One line for each length that leaves a prompt no token of the model's context."""
    context = shape_of(config.model.name).context
    lengths = {
        f"{path}.response_tokens": section.response_tokens
        for path, section in _trained(config).items()
        if isinstance(section, HybridConfig) and section.steps[1]
    }
    lengths["data.max_target_tokens"] = config.data.max_target_tokens + 1  # with its EOS
    lengths["evaluate.decoding.response_tokens"] = config.evaluate.decoding.response_tokens
    for path, length in lengths.items():
        if context is not None and length >= context:
            name = str(config.model.name)
            yield f"{path}: {length} leaves no room for a prompt in the {context} of {name!r}"


def _dtype(config: Config) -> Iterator[str]:
    """One line if the machine can't compute in the dtype; torch is loaded only if needed."""
    if config.model.dtype == "float16":
        from mht.models.loading import resolve_device
        from mht.models.precision import refused

        problem = refused(config.model.dtype, resolve_device(config.base.device))
        if problem:
            yield problem


def notes(config: Config, rows: int | None = None) -> Iterator[str]:
    """One ``path: message`` line for each valid setting that is most likely a mistake.

    Args:
        config: the settings.
        rows: of `data.source`, or None if not counted; see `mht.checks.sizes.sizes`.
    """
    for path, section in _trained(config).items():
        if isinstance(section, HybridConfig) and section.reward is not None:
            yield from _rewarded_for_the_bad(f"{path}.reward", section.reward)
    yield from doubtful(config)
    yield from sizes(config, rows)


def _rewarded_for_the_bad(path: str, reward: Reward, sign: float = 1.0) -> Iterator[str]:
    """One line for each component that is rewarded for high scores though low ones are good.

    Args:
        path: the component's place in the settings.
        reward: the component.
        sign: below 0 if the components above it invert it; 0 if it has no weight.
    """
    sign *= -1 if reward.invert else 1
    for step in reward.postprocess:
        sign *= getattr(step, "mul", 1.0)  # of the step `scale`
    if not reward.children():
        if sign > 0 and reward.direction() == "low":
            what = "is paid for high scores, though its low ones are the good ones"
            yield f"{path}: {what}: set invert to true, or a negative weight"
        return
    weighted = getattr(reward, "uses_weights", False)
    for key, child in children_of(reward):
        if key != "when":  # a gate's condition is not paid
            share = child.weight if weighted else 1.0
            yield from _rewarded_for_the_bad(f"{path}.{key}", child, sign * share)


def _memory(path: str, section: HybridConfig, name: str) -> Iterator[str]:
    """One line if the initial memory is missing, or is deleted when the stage runs."""
    start = section.memory.start
    if not section.memory.is_on or start is None:
        return
    own = Path("models", "hybrid" if name == "ppo" else name)
    if own.resolve() in Path(start).resolve().parents:
        yield f"{path}: DVC empties {own} before the stage runs: copy {start} to another folder"
    elif not Path(start).is_file():
        yield f"{path}: no such file {start}: give a memory.parquet of an earlier run, or null"


def _package(path: str, kind: str) -> Iterator[str]:
    module, package = PACKAGES.get(kind, ("", ""))
    if module and find_spec(module.partition(".")[0]) is None:
        yield f"{path}: {kind} needs the package {package!r}: pip install {package}, or set adamw"


def shape_of(name: str | FreshModel) -> Shape:
    """The shape of a fresh, bundled, local or fetched model."""
    if isinstance(name, FreshModel):
        return name.shape()
    if name in BUNDLED:
        return BUNDLED[name]
    folder = Path(name).expanduser()
    found = _read(folder if is_folder(folder) else _fetched(name))
    inner = found.get("text_config")
    found = inner if isinstance(inner, Mapping) else found
    return Shape(_first(found, LAYERS), _first(found, CONTEXT))


def _fetched(name: str) -> Path | None:
    """The folder of a hub model that `fetch` has written, or None."""
    try:
        assets = json.loads(ASSETS.read_text(encoding="utf-8"))
        names = [asset["name"] for asset in assets[:2]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    places = dict(zip(names, (Path("models/base"), Path("data/raw/encoder")), strict=False))
    return places.get(name)


def _read(folder: Path | None) -> Mapping[str, Any]:
    """A model folder's config; {} if it can't be read, which `fetch` reports."""
    try:
        found = json.loads((folder / "config.json").read_text("utf-8")) if folder else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _first(found: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    return next((found[k] for k in keys if isinstance(found.get(k), int)), None)
