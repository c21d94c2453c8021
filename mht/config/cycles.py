"""Cycles of phases: what a training run does one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mht.core.component import build, registry
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


def phase_problems(
    phases: Sequence[Mapping[str, int]], named: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Key and sentence for each phase that is none.

    Args:
        phases: as params.yaml gives them.
        named: the algorithms that have a name of their own.
    """
    for number, phase in enumerate(phases):
        try:
            (name,) = phase
            if name not in named:
                default_algorithm(name)
        except ValueError:
            what = f"is one algorithm and its steps, as in {{sft: 6}}, got {shown(phase)}"
            yield f"phases[{number}]", what
        except ConfigError as error:
            yield f"phases[{number}]", "; ".join(error.problems)
    for name in named:
        if name in ("validation", *registry("algorithm").names()):
            yield f"algorithms.{name}", "the name is taken: choose another"
