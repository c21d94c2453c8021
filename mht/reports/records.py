"""What a comparison of the variants holds, for one training seed and for many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mht.evaluation.metrics import describe
from mht.evaluation.over_seeds import SeedDifference
from mht.evaluation.statistics import UNCLEAR, verdict
from mht.evaluation.summary import Evaluated
from mht.reports.guard import Finding
from mht.reports.learning.curves import Curves
from mht.reports.learning.reach import Curve
from mht.reports.wording import prompts_of

UNEVEN = 0.05  # optimiser steps may differ by this share before we warn
STAGES = ("base", "sft")  # models that are there before the cycles

Summary = dict[str, dict[str, float]]


class Entry(NamedTuple):
    """A row of the table of variants, as reports need it.

    Attributes:
        name: of the variant.
        start: the model that its training starts from: "base", "sft" or another variant.
        steps: optimiser steps that its weights have seen.
        trained: whether it has cycles; a model that is measured as it is has none.
        batch_size: responses that a PPO step samples.
    """

    name: str
    start: str = "base"
    steps: int = 0
    trained: bool = True
    batch_size: int = 0


def stages_of(entry: Entry, entries: Sequence[Entry]) -> list[str]:
    """The trainings behind a variant's weights, in order: the SFT stage and variants.

    >>> rows = [Entry("a", "sft"), Entry("b", "a")]
    >>> stages_of(rows[1], rows)
    ['sft', 'a', 'b']
    """
    by_name = {each.name: each for each in entries if each.name not in STAGES}
    found = [entry.name] if entry.trained else []
    start = entry.start
    while start in by_name:
        found.insert(0, start)
        start = by_name[start].start
    return ["sft", *found] if start == "sft" else found


@dataclass(frozen=True)
class Variant:
    """One way of training, evaluated.

    Attributes:
        entry: its row.
        runs: its responses with their per-sample numbers, for each training seed.
        summary: metric to mean, low, high, over the seeds.
    """

    entry: Entry
    runs: Sequence[Evaluated]
    summary: Summary

    @property
    def name(self) -> str:
        """Its name."""
        return self.entry.name

    @property
    def steps(self) -> int:
        """Optimiser steps that its weights have seen."""
        return self.entry.steps

    @property
    def evaluated(self) -> Evaluated:
        """The responses of the first seed."""
        return self.runs[0]


class Line(NamedTuple):
    """One line of the table of who wins on what.

    Attributes:
        metric: that is compared.
        a: a variant.
        b: the one that it is compared with.
        found: how much a exceeds b.
        p_adjusted: for the number of lines in the table (Holm).
    """

    metric: str
    a: str
    b: str
    found: SeedDifference
    p_adjusted: float

    @property
    def verdict(self) -> str:
        """How a stands against b: better, worse, differs or unclear."""
        return verdict(describe(self.metric).direction, self.found.difference, self.p_adjusted)

    @property
    def winner(self) -> str | None:
        """A or b; None where the difference may be chance or neither way is better."""
        return {"better": self.a, "worse": self.b}.get(self.verdict)


@dataclass(frozen=True)
class Comparison:
    """The variants side by side.

    Attributes:
        variants: in the order of the table of variants.
        metrics: the chosen ones, for tables and plots.
        subject: the variant that is compared with the others.
        baseline: the variant that the table's differences and the guard take.
        seeds: the training seeds; the first one's responses are shown.
        differences: other variant to metric to subject minus other. The baseline has every metric,
            the others the chosen ones.
        lines: the chosen metrics' differences with their adjusted p-values.
        rows: positions of the samples to show.
        split: whose prompts were answered.
        findings: the guard's finding on each variant that was trained on the reward.
        sentences: the conclusion.
        curves: the training curves of the variants, and of the SFT stage.
        looks: variant to its looks at validation prompts, for each seed.
        costs: variant to cost to its value for each seed.
        over_seeds: metric to variant to what several seeds add: interquartile mean, each seed's.
        reach: how soon each variant reaches a score; None where nobody asked.
        options: resamples and seed of the intervals and tests.
    """

    variants: list[Variant]
    metrics: list[str]
    subject: str
    baseline: str
    seeds: list[int]
    differences: dict[str, dict[str, SeedDifference]]
    lines: list[Line]
    rows: list[int]
    split: str
    findings: list[Finding] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    curves: Curves = field(default_factory=dict)
    looks: Mapping[str, Sequence[Curve]] = field(default_factory=dict)
    costs: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    over_seeds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reach: dict[str, Any] | None = None
    options: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The variants' names."""
        return [v.name for v in self.variants]

    @property
    def prompts(self) -> int:
        """On how many prompts the variants were evaluated."""
        return self.variants[0].evaluated.prompts

    @property
    def asked(self) -> str:
        """The prompts with their kind, and the training seeds where there are several."""
        prompts = prompts_of(self.prompts, self.split, self.variants[0].evaluated.rounds)
        return prompts if len(self.seeds) == 1 else f"{prompts}, {len(self.seeds)} training seeds"

    def __getitem__(self, name: str) -> Variant:
        """The variant of that name."""
        return next(v for v in self.variants if v.name == name)

    def line(self, metric: str) -> Line | None:
        """The subject against the baseline; None where one of them lacks the metric."""
        wanted = (metric, self.subject, self.baseline)
        return next((line for line in self.lines if line[:3] == wanted), None)

    def verdict(self, metric: str) -> str:
        """How the subject stands against the baseline: better, worse, differs or unclear."""
        line = self.line(metric)
        return line.verdict if line else UNCLEAR

    def uneven(self) -> str | None:
        """A warning where trained variants' optimiser steps differ too much, else None."""
        steps = {v.name: v.steps for v in self.variants if v.entry.trained}
        if not steps or max(steps.values()) <= (1 + UNEVEN) * min(steps.values()):
            return None
        shown = ", ".join(f"{name} {count}" for name, count in steps.items())
        return (
            f"the budgets differ by more than {UNEVEN:.0%}: {shown} optimiser steps. "
            "Change cycles or steps in ppo and baselines until they match."
        )
