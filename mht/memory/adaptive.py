"""Adaptive memory: hard prompts more often, solved ones later."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mht.memory.base import Memory, Rows
from mht.memory.difficulty import places
from mht.memory.spaced import moved, next_due

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class AdaptiveMemory(Memory):
    """Draws rows whose prompts are due, by difficulty.

    Args:
        rows: the training data.
        exponent: of the place in the weights (`weights`).
        staleness: share of the weight that goes by the steps since a prompt was practised.
        floor: share of the weight that all prompts have alike.
        boxes: how many the Leitner system has (`spaced`).
        interval: practice steps until a prompt of the first box is due again.
        options: of `Memory`.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        exponent: float = 0.7,
        staleness: float = 0.1,
        floor: float = 0.1,
        boxes: int = 5,
        interval: int = 1,
        **options: Any,
    ):
        super().__init__(rows, **options)
        self.exponent, self.staleness, self.floor = exponent, staleness, floor
        self.boxes, self.interval = boxes, interval
        count = len(rows.first)
        self.records |= {"box": np.zeros(count, np.int64), "due": np.zeros(count, np.int64)}

    def practised(self, prompts: Ints) -> None:
        """Move the prompts to their boxes, from which they come back when due."""
        boxes = moved(self.records["box"][prompts], self.classes[prompts], self.boxes)
        self.records["box"][prompts] = boxes
        self.records["due"][prompts] = next_due(self.clock, boxes, self.interval)

    @property
    def due(self) -> Ints:
        """The known prompts whose time has come for the next practice step."""
        known = self.known
        return known[self.records["due"][known] <= self.clock + 1]

    def choose(self, n: int, generator: np.random.Generator) -> list[int]:
        """At most n rows whose prompts are due, each once.

        A prompt's chance is shared by its rows. So a hard one with many rows comes several times in
        one batch.
        """
        due = self.due
        ages = (self.clock - self.records["last"][due]).astype(np.float64)
        chances = weights(
            self.difficulty[due],
            ages,
            exponent=self.exponent,
            staleness=self.staleness,
            floor=self.floor,
        )
        of_each = np.full(len(self.rows.first), np.nan)
        of_each[due] = chances / self.rows.sizes[due]
        of_rows = of_each[self.rows.numbers]
        rows = np.flatnonzero(~np.isnan(of_rows))
        return rows[draw(of_rows[rows], n, generator)].tolist()

    def statistics(self) -> dict[str, float]:
        """Those of every memory, the share of known prompts that are due, and the mean box."""
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
    """The chances (n,) of prompts, which add up to 1.

    A mixture of three: by place, ``(1 / place) ** exponent`` with place 1 the hardest (Schaul et
    al. 2015, arXiv:1511.05952, the rank-based variant; equal rows share the mean of their places);
    by staleness, in proportion to the age (Jiang et al. 2020, arXiv:2010.03934); and uniform.

    Args:
        difficulty: (n,) places in (0, 1), the hardest highest.
        ages: (n,) practice steps since each was practised.
        exponent: 0 makes the first part uniform.
        staleness: weight of the second part.
        floor: weight of the third.
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
    """At most n different indices, drawn one after the other in proportion to their chances.

    The exponential keys of Efraimidis and Spirakis 2006 (doi:10.1016/j.ipl.2005.11.003); what has
    no chance is not drawn.
    """
    keys = -np.log1p(-generator.random(len(chances)))  # exponential, from one number each
    with np.errstate(divide="ignore", invalid="ignore"):
        keys = np.where(chances > 0, keys / chances, np.inf)
    found = np.argpartition(keys, n - 1)[:n] if 0 < n < len(keys) else np.arange(len(keys))[:n]
    found = found[np.argsort(keys[found], kind="stable")]
    return found[np.isfinite(keys[found])]
