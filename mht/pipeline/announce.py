"""What a stage says of itself: where it stands in the pipeline, and how long it takes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mht.core.errors import ConfigError
from mht.core.plain import parse_json
from mht.core.project import repo_root
from mht.core.stable_files import write_json

PIPELINE = Path("dvc.yaml")
DURATIONS = Path(".mht", "durations.json")  # of this machine, so no out of DVC
SAID = re.compile(r"^  (?P<stage>\w+): # (?P<what>.+)$", re.MULTILINE)
TABLE = re.compile(r"^    foreach: \$\{(?P<section>\w+)\}$", re.MULTILINE)


@dataclass(frozen=True)
class Place:
    """A stage among all of the pipeline.

    Attributes:
        number: from 1, in dvc.yaml's order.
        count: of all stages.
        what: the stage does, as dvc.yaml says behind its name.
    """

    number: int
    count: int
    what: str


@contextmanager
def announced(name: str, params: Mapping[str, Any]) -> Iterator[None]:
    """Print a line before a stage's work and one after it, with the time it took.

    Args:
        name: as DVC addresses it, such as ``ppo@hybrid``.
        params: all settings, whose tables have the variants.
    """
    place = place_of(name, PIPELINE, params)
    before = durations().get(name)
    if place:
        about = f", about {spoken(before)}" if before else ""
        print(f"[{place.number}/{place.count}] {name}: {place.what}{about}", flush=True)
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    if place:
        print(f"{name}: done in {spoken(took)}", flush=True)
        _keep(name, took)


def place_of(name: str, pipeline: Path, params: Mapping[str, Any]) -> Place | None:
    """Where a stage stands in a dvc.yaml; None where that has no such stage."""
    if not pipeline.is_file():
        return None
    stages = dict(_stages(pipeline.read_text(encoding="utf-8"), params))
    names = list(stages)
    return Place(names.index(name) + 1, len(names), stages[name]) if name in stages else None


def _stages(text: str, params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each stage's name with what it does; one for each row of a table."""
    found = list(SAID.finditer(text))
    ends = [*(match.start() for match in found[1:]), len(text)]
    for match, end in zip(found, ends, strict=True):
        table = TABLE.search(text, match.end(), end)
        stage, what = match["stage"], match["what"]
        rows = params.get(table["section"], {}) if table else {}
        yield from ((f"{stage}@{row}", what) for row in rows) if table else [(stage, what)]


def spoken(seconds: float) -> str:
    """A time as people say it.

    >>> [spoken(s) for s in (0.4, 89, 112, 480, 5400)]
    ['1 s', '89 s', '1 min 52 s', '8 min', '1 h 30 min']
    """
    whole = max(1, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest and minutes < 5 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def durations() -> dict[str, float]:
    """Stage to the seconds that it took the last time, on this machine."""
    file = repo_root() / DURATIONS
    if not file.is_file():
        return {}
    try:
        found = parse_json(file.read_text(encoding="utf-8"), str(file))
    except (UnicodeDecodeError, ConfigError):  # it is written anew
        return {}
    return {k: v for k, v in found.items() if isinstance(v, int | float)}


def _keep(name: str, seconds: float) -> None:
    file = repo_root() / DURATIONS
    file.parent.mkdir(exist_ok=True)
    write_json(file, {**durations(), name: round(seconds, 1)})
