"""The section of the hyperparameter search: which settings, what is good, how long."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, model_validator

from mht.core.bounds import NonNegative, Positive, Rate, Seed
from mht.core.component import Section, refuse

VALIDATION = "validation/"
MOST_POINTS = 100_000  # of a grid: all of them are in memory
Value = bool | int | float | str | None


def _weights(value: Any) -> dict[str, float]:
    """``validation/score`` is short for ``{validation/score: 1}``."""
    pairs = {value: 1.0} if isinstance(value, str) else value
    if not isinstance(pairs, Mapping) or not pairs:
        raise ValueError("should be a figure, or a mapping of figures to weights")
    for name, weight in pairs.items():
        if not str(name).startswith(VALIDATION):
            what = f"{name!r} is no validation figure (validation/score, validation/kl_nats,"
            raise ValueError(f"{what} ...): a search never looks at test data")
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"the weight of {name} should be a number")
    return {str(name): float(weight) for name, weight in pairs.items()}


Objective = Annotated[dict[str, float], PlainValidator(_weights), PlainSerializer(dict)]


class SearchedConfig(Section):
    """One setting that is searched.

    Attributes:
        type: "float", "int", or "categorical".
        low: the least value; a valid setting.
        high: the greatest value; a valid setting.
        log: equal ratios are equally likely, as is right for learning rates.
        step: between two values; null is any float, and 1 of integers.
        choices: the values of a categorical setting.
    """

    type: Literal["float", "int", "categorical"]
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: Rate | Positive | None = None
    choices: list[Value] | None = None

    @model_validator(mode="after")
    def _fits(self) -> SearchedConfig:
        problems = self._categorical() if self.type == "categorical" else self._numeric()
        refuse(problems)
        return self

    def _categorical(self) -> Iterator[tuple[str, str]]:
        if not self.choices:
            yield "choices", "a categorical setting needs at least one"
        for key in ("low", "high", "step"):
            if getattr(self, key) is not None:
                yield key, "a categorical setting has choices instead"
        if self.log:
            yield "log", "a categorical setting has no scale"

    def _numeric(self) -> Iterator[tuple[str, str]]:
        if self.choices is not None:
            yield "choices", f"are for type categorical; this one is {self.type}: set low and high"
        if self.low is None or self.high is None:
            yield "", f"{self.type} needs low and high"
            return
        if self.low >= self.high:
            yield "low", f"{self.low:g} is not below high {self.high:g}"
        if self.type == "int":
            for key in ("low", "high", "step"):
                if isinstance(getattr(self, key), float):
                    yield key, f"should be an integer, got {getattr(self, key):g}"
        if self.log and self.low <= 0:
            yield "log", f"needs a low above 0, got {self.low:g}"
        if self.log and self.step is not None:
            yield "step", "goes with log: false only"
        if self.step and (self.high - self.low) / self.step > MOST_POINTS:
            yield "step", f"makes more than {MOST_POINTS:,} values: raise it"

    @property
    def ends(self) -> dict[str, Value]:
        """By name the values that must be valid settings: both ends, or every choice."""
        if self.choices is not None:
            return {f"choices[{i}]": value for i, value in enumerate(self.choices)}
        cast = int if self.type == "int" else float
        return {"low": cast(self.low or 0), "high": cast(self.high or 0)}

    @property
    def grid(self) -> list[Value] | None:
        """All values; None where there is no end of them."""
        if self.choices is not None:
            return list(self.choices)
        assert self.low is not None and self.high is not None
        step = self.step or (1 if self.type == "int" and not self.log else None)
        if step is None:
            return None
        count = min(math.floor((self.high - self.low) / step + 1e-9), MOST_POINTS) + 1
        values = [self.low + i * step for i in range(count)]
        return [int(v) if self.type == "int" else float(v) for v in values]


class TuneConfig(Section):
    """The hyperparameter search of `mht tune` (docs/howto/tuning.md); no stage reads it.

    Attributes:
        space: what is searched, by the setting's path, such as ``ppo.lr``.
        metric: a validation figure, or figures with weights that add up, such as
            ``{validation/score: 1, validation/kl_nats: -0.05}``; of the last look.
        direction: "maximize" or "minimize" it.
        trials: how many, those of earlier calls included.
        sampler: "tpe" learns from the trials so far (Bergstra et al. 2011), "random", or "grid".
        pruner: what ends hopeless trials early: "median" those below the median of the others at
            the same cycle, "hyperband" (arXiv:1603.06560), or "none".
        startup_trials: that many end before the median prunes.
        warmup_cycles: the median prunes after no fewer.
        seed: of the sampler.
        budget_s: seconds after which no trial starts, of one call; null is no limit.
    """

    space: dict[str, SearchedConfig] = Field(default_factory=dict)
    metric: Objective = Field(default_factory=lambda: {f"{VALIDATION}score": 1.0})
    direction: Literal["maximize", "minimize"] = "maximize"
    trials: Positive = 20
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    pruner: Literal["median", "hyperband", "none"] = "median"
    startup_trials: NonNegative = 5
    warmup_cycles: NonNegative = 1
    seed: Seed = 0
    budget_s: Rate | None = None

    @model_validator(mode="after")
    def _grid_ends(self) -> TuneConfig:
        endless = [p for p, s in self.space.items() if self.sampler == "grid" and s.grid is None]
        refuse((f"space.{path}", "a grid needs a step, or choices") for path in endless)
        if self.sampler == "grid":
            points = math.prod(len(searched.grid or ()) for searched in self.space.values())
            what = f"a grid of {points:,} points is more than {MOST_POINTS:,}: raise steps"
            refuse([("space", what)] if points > MOST_POINTS else [])
        return self
