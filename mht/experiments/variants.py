"""The variants of a benchmark over seeds: their settings, checked, and what their results rest on.

A variant is a recipe (hybrid, SFT only...) with the settings in which it differs from the
experiment. Two variants that would do the same training have the same identity, so one of them is
trained.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mht.config import Config, HybridConfig, SFTConfig
from mht.config.evaluation import RECIPES
from mht.config.overlays.overlay import lay_over
from mht.core.bounds import name_problem
from mht.core.component import build, did_you_mean
from mht.core.errors import ConfigError, shown

if TYPE_CHECKING:
    from mht.config.cycles import Plan

WITHOUT_SFT = ("base", "ppo_only")  # recipes that start from the base model
SHARED = (  # settings that make results comparable
    "base", "data", "reward_model", "evaluate", "benchmark",
    "model.name", "model.revision", "model.trust_remote_code",
)  # fmt: skip
NO_RESULT = ("base.experiment", "base.checkpoint_every_s")  # they change none
IN_PLAN = {"cycles", "sft_steps_per_cycle", "ppo_steps_per_cycle", "phases", "mix", "save_every"}
NO_RESULT_CODE = (  # what only shows, logs or starts what others have computed
    "cli/*", "tracking/*", "reports/*", "experiments/ablations.py", "experiments/compare.py",
    "experiments/evidence.py", "experiments/search/*", "generation/decoding/*",
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """One way to train, as a benchmark over seeds compares them.

    Attributes:
        name: of its folder and its column.
        recipe: one of the recipes of ``benchmark.recipes``.
        config: all settings, its own included.
        changes: nested, those in which it differs from the experiment.
    """

    name: str
    recipe: str
    config: Config
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sft(self) -> SFTConfig | None:
        """The SFT stage that it starts from, if any."""
        stage = self.config.sft
        return None if self.recipe in WITHOUT_SFT or not stage.steps else stage

    @property
    def loop(self) -> HybridConfig | None:
        """The settings of its cycles; None without training."""
        if self.recipe == "base":
            return None
        baselines: dict[str, HybridConfig] = {**self.config.baselines, "hybrid": self.config.ppo}
        return baselines.get(self.recipe, self.config.ppo)

    @property
    def section(self) -> str:
        """Where the settings of its cycles stand."""
        is_baseline = self.recipe in self.config.baselines and self.recipe != "hybrid"
        return f"baselines.{self.recipe}" if is_baseline else "ppo"

    @property
    def plan(self) -> Plan:
        """Its SFT and PPO steps, cycle by cycle."""
        plan = self.loop.plan if self.loop else []
        return sft_first(plan) if self.recipe == "sft_then_ppo" else plan

    @property
    def optimizer_steps(self) -> int:
        """Of the SFT stage and the cycles together."""
        own = self.loop.optimizer_steps if self.loop else 0
        return own + (self.sft.steps if self.sft else 0)


def sft_first(plan: Plan) -> Plan:
    """The same steps without alternation.

    >>> sft_first([(("sft", 1), ("ppo", 5)), (("sft", 2), ("ppo", 5))])
    [(('sft', 1),), (('sft', 2),), (('ppo', 5),), (('ppo', 5),)]
    """
    phases = [phase for cycle in plan for phase in cycle if phase[1]]
    return [(phase,) for name in ("sft", "ppo") for phase in phases if phase[0] == name]


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested mappings; what is nested already stays.

    >>> nested({"ppo.kl_coef": 0.1, "ppo": {"lam": 0.9}, "sft.steps": 0})
    {'ppo': {'kl_coef': 0.1, 'lam': 0.9}, 'sft': {'steps': 0}}
    """
    found: dict[str, Any] = {}
    for path, value in flat.items():
        *above, key = path.split(".")
        inner = nested(value) if isinstance(value, Mapping) else value
        for name in reversed([*above, key]):
            inner = {name: inner}
        lay_over(found, inner)
    return found


def variants_of(config: Config) -> list[Variant]:
    """All variants that `mht seeds` trains: the standard ones, then the experiment's own.

    Raises:
        ConfigError: with every mistake in any of them, the variant's name and the path.
    """
    wanted = config.benchmark
    found = [Variant(recipe, recipe, config) for recipe in wanted.recipes]
    problems: list[str] = []
    for name, changes in wanted.variants.items():
        try:
            found.append(_own(name, changes, config))
        except ConfigError as error:
            problems += error.problems
    names = [variant.name for variant in found] + list(wanted.variants)
    if wanted.subject not in names:
        close = did_you_mean(wanted.subject, names)
        what = f"no such variant {shown(wanted.subject)}{close}. There are {', '.join(names)}"
        problems.append(f"benchmark.subject: {what}")
    if problems:
        raise ConfigError(problems, "the benchmark's variants")
    return found


def _own(name: str, changes: Mapping[str, Any], config: Config) -> Variant:
    path = f"benchmark.variants.{name if name_problem(name) is None else shown(name)}"
    if name in RECIPES:
        raise ConfigError([f"{path}: this name is a recipe's: choose another"])
    problem = name_problem(name)
    if problem:
        raise ConfigError([f"{path}: {problem}"])
    wanted = nested({key: value for key, value in changes.items() if key != "recipe"})
    recipe = changes.get("recipe", "hybrid")
    if recipe not in RECIPES:
        close = did_you_mean(str(recipe), RECIPES)
        what = f"no such recipe {shown(recipe)}{close}. There are {', '.join(RECIPES)}"
        raise ConfigError([f"{path}.recipe: {what}"])
    settings = config.model_dump()
    lay_over(settings, wanted)
    try:
        made = build(Config, settings)
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from None
    before, after = config.model_dump(mode="json"), made.model_dump(mode="json")
    differ = [key for key in SHARED if look_up(before, key) != look_up(after, key)]
    if differ:
        what = "all variants share it; another value is an experiment of its own"
        raise ConfigError([f"{path}: {key}: {what}" for key in differ])
    return Variant(name, recipe, made, wanted)


def look_up(data: Any, path: str) -> Any:
    """The value at a dotted path of nested mappings; None where there is none."""
    for key in path.split("."):
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def identity(variant: Variant, measured: Config) -> dict[str, str]:
    """What a variant's result rests on: the sha256 of the settings that matter, and of the code.

    Args:
        variant: with its seed set.
        measured: the experiment's settings with that seed: its reward and its evaluation measure
            all variants.
    """
    config = variant.config
    settings = {
        **training(variant),
        "base": _without(config.base.model_dump(mode="json"), "base."),
        "data": measured.data.model_dump(mode="json"),
        "reward_model": measured.reward_model.model_dump(mode="json"),
        "evaluate": measured.evaluate.model_dump(mode="json"),
        "reward": measured.model_dump(mode="json")["ppo"]["reward"],
    }
    text = json.dumps(settings, sort_keys=True)
    return {"settings": hashlib.sha256(text.encode()).hexdigest(), "code": code_identity()}


def training(variant: Variant) -> dict[str, Any]:
    """The settings that decide what a variant does until it is measured."""
    loop = variant.loop.model_dump(mode="json") if variant.loop else {}
    return {
        "model": variant.config.model.model_dump(mode="json"),
        "sft": variant.sft.model_dump(mode="json") if variant.sft else None,
        "plan": [[phase for phase in cycle if phase[1]] for cycle in variant.plan],
        "loop": {key: value for key, value in loop.items() if key not in IN_PLAN},
    }


def _without(section: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key: value for key, value in section.items() if prefix + key not in NO_RESULT}


@functools.cache
def code_identity() -> str:
    """The sha256 of the library's modules that can change a result."""
    package = Path(__file__).parents[1]
    code = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package)
        if not any(fnmatch(name.as_posix(), pattern) for pattern in NO_RESULT_CODE):
            code.update(name.as_posix().encode() + file.read_bytes())
    return code.hexdigest()
