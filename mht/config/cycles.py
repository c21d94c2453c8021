"""Cycles of phases: the order of a training run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field

from mht.config.policy import Name
from mht.core.bounds import MOST_STEPS, Cycles, NonNegative
from mht.core.component import Chosen, Section, build, registry
from mht.core.errors import ConfigError, shown

Phase = tuple[str, int]  # an algorithm's name, and how many of its steps
Cycle = tuple[Phase, ...]
Plan = Sequence[Cycle]


def steps_of(plan: Plan) -> dict[str, int]:
    """By algorithm, its steps in all cycles together; no entry for one without a step.

    >>> steps_of([(("sft", 2), ("ppo", 1)), (("sft", 1), ("ppo", 0))])
    {'sft': 3, 'ppo': 1}
    """
    found: Counter[str] = Counter()
    for cycle, times in Counter(plan).items():
        for name, steps in cycle:
            found[name] += steps * times
    return {name: steps for name, steps in found.items() if steps}


def default_algorithm(name: str) -> Any:
    """The algorithm of this type, with the defaults of its options.

    Raises:
        ConfigError: there is none, or it has an option without a default.
    """
    try:
        member = registry("algorithm").get(name)
    except KeyError as error:
        raise ConfigError([str(error.args[0])]) from None
    return build(member, {"type": name}, path="algorithms")


class CyclesConfig(Section):
    """The cycles of a training run.

    Attributes:
        cycles: rounds of all phases.
        sft_steps_per_cycle: SFT steps in each cycle, before its PPO steps; may be 0.
        ppo_steps_per_cycle: PPO steps in each cycle; may be 0. A PPO step samples ``batch_size``
            responses and makes ``epochs * batch_size / minibatch_size`` optimiser steps.
        phases: the phases of each cycle in order, each an algorithm and its steps, such as
            ``[{sft: 6}, {ppo: 1}]``. The two keys above are a short form for that; null takes them.
        algorithms: algorithms with options of their own, by the name that a phase calls them.
        mix: how the steps of the phases change over the cycles. It also gives the weights of SFT
            and reinforcement learning, and says which responses begin with a part of the target.
    """

    cycles: Cycles
    sft_steps_per_cycle: NonNegative = 0
    ppo_steps_per_cycle: NonNegative = 0
    phases: list[dict[str, NonNegative]] | None = None
    algorithms: dict[Name, Annotated[Any, Chosen("algorithm")]] = Field(default_factory=dict)
    mix: Annotated[Any, Chosen("mix")] = Field({"type": "alternation"}, validate_default=True)

    @property
    def cycle(self) -> Cycle:
        """The phases of a cycle, as the settings give them."""
        if self.phases is None:
            return (("sft", self.sft_steps_per_cycle), ("ppo", self.ppo_steps_per_cycle))
        return tuple(phase for part in self.phases for phase in part.items())

    @property
    def plan(self) -> Plan:
        """The phases of each cycle, as the mix has them."""
        return self.mix.plan(self.cycle, self.cycles)

    def algorithm(self, name: str) -> Any:
        """The algorithm that a phase names: one of ``algorithms``, or a type with its defaults."""
        own = self.algorithms.get(name)
        return default_algorithm(name) if own is None else own

    def needs(self, name: str) -> frozenset[str]:
        """What the steps of an algorithm learn from: "examples", "rollouts", "pairs"."""
        return self.algorithm(name).needs

    @property
    def all_needs(self) -> frozenset[str]:
        """What the steps of all cycles learn from."""
        return frozenset().union(*map(self.needs, steps_of(self.plan)))

    def samples(self, name: str) -> bool:
        """Whether the steps of an algorithm sample responses."""
        return bool(self.needs(name) & {"rollouts", "pairs"})

    @property
    def steps(self) -> tuple[int, int]:
        """Steps that learn from examples, and steps that sample responses, of all cycles."""
        counts = steps_of(self.plan)
        return (
            sum(n for name, n in counts.items() if "examples" in self.needs(name)),
            sum(n for name, n in counts.items() if self.samples(name)),
        )

    @property
    def optimizer_steps(self) -> int:
        """Optimiser steps of the whole schedule."""
        counts = steps_of(self.plan)
        return sum(n * self.algorithm(name).updates(self) for name, n in counts.items())

    def phase_problems(self) -> Iterator[tuple[str, str]]:
        """Key and sentence for each wrong phase."""
        for number, phase in enumerate(self.phases or []):
            try:
                (name,) = phase
                self.algorithm(name)
            except ValueError:
                what = f"is one algorithm and its steps, as in {{sft: 6}}, got {shown(phase)}"
                yield f"phases[{number}]", what
            except ConfigError as error:
                yield f"phases[{number}]", "; ".join(error.problems)
        for name in {"validation", *registry("algorithm").names()} & set(self.algorithms):
            yield f"algorithms.{name}", "the name is taken: choose another"
        if self.phases is not None and (self.sft_steps_per_cycle or self.ppo_steps_per_cycle):
            short = "sft_steps_per_cycle and ppo_steps_per_cycle"
            yield "phases", f"{short} are set too: set phases to null, or both of them to 0"

    def step_problems(self) -> Iterator[tuple[str, str]]:
        """Key and sentence where there are too many steps, or none."""
        total = sum(steps_of(self.plan).values())
        if total > MOST_STEPS:
            what = f"{total:,} steps in all are more than {MOST_STEPS:,}: lower it, or the"
            yield "cycles", f"{what} steps per cycle"
        if self.cycles and not total:
            what = f"{self.cycles} cycles have no step: set sft_steps_per_cycle or"
            yield "cycles", f"{what} ppo_steps_per_cycle, or cycles to 0"
