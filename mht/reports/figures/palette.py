"""Colours of figures: Okabe and Ito's, which stay apart for colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

MARKS = (  # by slot, on light and on dark paper; the style sheet has darker ones for text
    ("#8b93a1", "#a4acba"),
    ("#0072b2", "#56b4e9"),
    ("#e69f00", "#f0b440"),
    ("#009e73", "#2cc295"),
    ("#d55e00", "#ff8f4d"),
    ("#a3527f", "#e19ac2"),
    ("#2f7fb8", "#8cc7f0"),
    ("#8a7a00", "#e0d04a"),
)


@dataclass(frozen=True)
class Palette:
    """The colours of a figure.

    Attributes:
        paper: behind everything.
        ink: of text.
        faint: of what matters less.
        rule: of grids.
        marks: of variants, by name.
    """

    paper: str
    ink: str
    faint: str
    rule: str
    marks: Mapping[str, str] = field(default_factory=dict)


LIGHT = Palette("#ffffff", "#1f2430", "#8b93a1", "#e3e6eb")
DARK = Palette("#171a21", "#e8eaf0", "#8d95a5", "#2c313c")


def slots(names: Iterable[str]) -> dict[str, int]:
    """A colour's number, 0 to 7, for each variant in turn; grey is for the first alone.

    >>> slots(["base", "sft_only", "hybrid"])
    {'base': 0, 'sft_only': 1, 'hybrid': 2}
    """
    others = len(MARKS) - 1
    return {name: 1 + (i - 1) % others if i else 0 for i, name in enumerate(names)}


def palette(names: Sequence[str], *, dark: bool = False) -> Palette:
    """The colours with a mark's for each variant."""
    marks = {name: MARKS[slot][dark] for name, slot in slots(names).items()}
    return replace(DARK if dark else LIGHT, marks=marks)
