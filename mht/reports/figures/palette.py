"""Colours of the variants: Okabe and Ito's, which stay apart for colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

LIGHT = {
    "paper": "#ffffff", "ink": "#1f2430", "faint": "#8b93a1", "rule": "#e3e6eb",
    "base": "#8b93a1", "sft": "#0072b2", "sft_only": "#0072b2", "ppo_only": "#e69f00",
    "hybrid": "#009e73",
}  # fmt: skip
DARK = {
    "paper": "#171a21", "ink": "#e8eaf0", "faint": "#8d95a5", "rule": "#2c313c",
    "base": "#a4acba", "sft": "#56b4e9", "sft_only": "#56b4e9", "ppo_only": "#f0b440",
    "hybrid": "#2cc295",
}  # fmt: skip
KNOWN = {"base": 0, "sft_only": 1, "ppo_only": 2, "hybrid": 3, "sft": 1}
OTHERS = {  # slots of other names, in turn: marks on light and on dark paper
    4: ("#d55e00", "#ff8f4d"),
    5: ("#a3527f", "#e19ac2"),
    6: ("#2f7fb8", "#8cc7f0"),
    7: ("#8a7a00", "#e0d04a"),
}


def slots(names: Iterable[str]) -> dict[str, int]:
    """A colour's number, 0 to 7, for each variant: the known ones always have theirs.

    >>> slots(["hybrid", "memory", "base"])
    {'hybrid': 3, 'memory': 4, 'base': 0}
    """
    names = list(names)
    others = [name for name in names if name not in KNOWN]
    free = [number for number in range(1, 8) if number not in {KNOWN.get(n) for n in names}]
    order = [*OTHERS, *(number for number in free if number not in OTHERS)]
    given = {name: order[i % len(order)] for i, name in enumerate(others)}
    return {name: KNOWN.get(name, given.get(name, 0)) for name in names}


def colours(names: Iterable[str], *, dark: bool = False) -> Mapping[str, str]:
    """A mark's colour for each variant, and those of paper, ink, faint ink and rules."""
    own = DARK if dark else LIGHT
    marks = {number: own[name] for name, number in KNOWN.items()}
    marks |= {number: pair[dark] for number, pair in OTHERS.items()}
    return {**own, **{name: marks[number] for name, number in slots(names).items()}}
