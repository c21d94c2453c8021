"""Numbers and names with bounds, as the sections of params.yaml use them."""

from __future__ import annotations

import unicodedata
from importlib.util import find_spec
from typing import Annotated

from pydantic import AfterValidator, Field

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Cycles = Annotated[int, Field(ge=0, le=100_000)]  # a plan has an entry for each
Resamples = Annotated[int, Field(gt=0, le=100_000)]  # all of them are in memory together
MOST_STEPS = 10_000_000  # a run's schedule has an entry for each
MOST_SEEDS = 1000  # training seeds of one experiment
LONGEST_NAME = 100
SEGMENTERS = ("characters", "icu", "spaces")


def name_problem(name: str, *, also: str = "") -> str | None:
    """What keeps a name from naming a folder, a run and a git reference; None for a good one.

    Args:
        name: the name.
        also: characters that it may have besides letters, digits and ``. _ + -``.

    >>> name_problem("no_clip-0.1"), name_problem("mht runs", also=" ")
    (None, None)
    >>> name_problem("../x")
    "a name is made of letters, digits and . _ + -, as it becomes a folder's"
    """
    letters = all(
        c.isalnum() or unicodedata.category(c)[0] == "M" or c in f"._+-{also}" for c in name
    )
    if not letters or not name or name[0] in " .+-":
        extra = ", spaces" if also else ""
        return f"a name is made of letters, digits{extra} and . _ + -, as it becomes a folder's"
    if len(name) > LONGEST_NAME:
        return f"a name has at most {LONGEST_NAME} characters"
    if ".." in name or name.endswith((".", " ", ".lock")):
        return "a name has no two dots together, and no dot, space or .lock at its end"
    return None


def _label(name: str) -> str:
    problem = name_problem(name, also=" ")
    if problem:
        raise ValueError(problem)
    return name


Label = Annotated[str, AfterValidator(_label)]


def _segmenter(name: str) -> str:
    if name not in SEGMENTERS:
        raise ValueError(
            f"should be {', '.join(SEGMENTERS[:-1])} or {SEGMENTERS[-1]}, got {name!r}"
        )
    if name == "icu" and find_spec("icu4py") is None:
        raise ValueError("icu needs the package 'icu4py': pip install icu4py")
    return name


Segmenter = Annotated[str, AfterValidator(_segmenter)]
