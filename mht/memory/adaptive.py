"""Adaptive memory: practises hard prompts more often and easy ones later."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mht.core.bounds import Positive, Share, Weight
from mht.core.component import Section, refuse
from mht.memory.base import Memory, Rows, memory
from mht.memory.difficulty import places
from mht.memory.spaced import moved, next_due

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class AdaptiveOptions(Section):
    """Practice by difficulty, spaced out in time.

    Attributes:
        exponent: a prompt is drawn with weight ``(1 / place) ** exponent``, place 1 the hardest
            (rank-based prioritisation, Schaul et al. 2015, arXiv:1511.05952); 0 is uniform.
        staleness: the share of the weight that is in proportion to the steps since a prompt was
            practised (prioritised level replay, Jiang et al. 2020, arXiv:2010.03934).
        floor: the share of the weight that is the same for all prompts, easy ones included.
        boxes: number of boxes of the Leitner system. An easy prompt moves up a box, a hard one back
            to the first. It is due again after ``interval * 2 ** box`` practice steps. 1 turns
            spacing off.
        interval: practice steps (SFT and PPO steps) until a prompt of the first box is due again.
    """

    exponent: Weight = 0.7
    staleness: Share = 0.1
    floor: Share = 0.1
    boxes: Annotated[int, Field(ge=1, le=30)] = 5
    interval: Positive = 1

    @model_validator(mode="after")
    def _fits_together(self) -> AdaptiveOptions:
        if self.staleness + self.floor > 1:
            what = f"{self.floor} with staleness {self.staleness} is more than the whole weight"
            refuse([("floor", f"{what}: set both so that they add up to 1 at most")])
        return self


@memory("adaptive")
class AdaptiveMemory(Memory):
    """Draws rows of due prompts by their difficulty."""

    Options: ClassVar[type[Section]] = AdaptiveOptions
    options: AdaptiveOptions

    def __init__(self, rows: Rows, options: AdaptiveOptions, **common: Any):
        super().__init__(rows, options, **common)
        count = len(rows.first)
        self.records |= {"box": np.zeros(count, np.int64), "due": np.zeros(count, np.int64)}

    def practised(self, prompts: Ints) -> None:
        """Move the prompts to their new boxes and set when they are due again."""
        boxes = moved(self.records["box"][prompts], self.classes[prompts], self.options.boxes)
        self.records["box"][prompts] = boxes
        self.records["due"][prompts] = next_due(self.clock, boxes, self.options.interval)

    @property
    def due(self) -> Ints:
        """The remembered prompts that are due at the next practice step."""
        known = self.known
        return known[self.records["due"][known] <= self.clock + 1]

    def choose(self, n: int, generator: np.random.Generator) -> list[int]:
        """At most n rows whose prompts are due, each once.

        Rows of the same prompt share its probability. A hard prompt with many rows may come several
        times in one batch.
        """
        due = self.due
        ages = (self.clock - self.records["last"][due]).astype(np.float64)
        chances = weights(
            self.difficulty[due],
            ages,
            exponent=self.options.exponent,
            staleness=self.options.staleness,
            floor=self.options.floor,
        )
        of_each = np.full(len(self.rows.first), np.nan)
        of_each[due] = chances / self.rows.sizes[due]
        of_rows = of_each[self.rows.numbers]
        rows = np.flatnonzero(~np.isnan(of_rows))
        return rows[draw(of_rows[rows], n, generator)].tolist()

    def statistics(self) -> dict[str, float]:
        """The figures of every memory, the share of due prompts, and the mean box."""
        known = self.known
        count = max(len(known), 1)
        figures = {
            "due_share": len(self.due) / count,
            "box": float(self.records["box"][known].sum() / count),
        }
        return super().statistics() | figures


def weights(
    difficulty: Floats, ages: Floats, *, exponent: float, staleness: float, floor: float
) -> Floats:
    """The probabilities (n,) of prompts, which add up to 1.

    They mix three parts:

    - by difficulty: ``(1 / place) ** exponent`` with place 1 the hardest, the rank-based variant of
      Schaul et al. 2015 (arXiv:1511.05952). Equal prompts share the mean of their places.
    - by staleness: in proportion to the age (Jiang et al. 2020, arXiv:2010.03934).
    - uniform.

    Args:
        difficulty: (n,) places in (0, 1), the hardest highest.
        ages: (n,) practice steps since each was practised.
        exponent: 0 makes the part by difficulty uniform.
        staleness: weight of the part by staleness.
        floor: weight of the uniform part.
    """
    count = len(difficulty)
    if not count:
        return np.zeros(0)
    rank = places(-difficulty) * count + 0.5  # 1 is the hardest, n the easiest
    by_place = rank**-exponent
    uniform = np.full(count, 1 / count)
    by_age = ages / ages.sum() if ages.sum() > 0 else uniform
    rest = 1 - staleness - floor
    return rest * by_place / by_place.sum() + staleness * by_age + floor * uniform


def draw(chances: Floats, n: int, generator: np.random.Generator) -> Ints:
    """At most n different indices, drawn one after the other in proportion to their weights.

    The draws use the exponential keys of Efraimidis and Spirakis 2006
    (doi:10.1016/j.ipl.2005.11.003). An index with weight 0 is never drawn.
    """
    keys = -np.log1p(-generator.random(len(chances)))  # exponential, from one number each
    with np.errstate(divide="ignore", invalid="ignore"):
        keys = np.where(chances > 0, keys / chances, np.inf)
    found = np.argpartition(keys, n - 1)[:n] if 0 < n < len(keys) else np.arange(len(keys))[:n]
    found = found[np.argsort(keys[found], kind="stable")]
    return found[np.isfinite(keys[found])]
