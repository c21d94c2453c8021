"""Which stages `dvc repro` would run, and why, from dvc.lock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mht.tracking.content.pipeline import SETTINGS, Pipeline, Stage, tree_md5
from mht.tracking.names import chosen, flat_params

UNSET = "unset"
CODE = "code"  # of a project: the stage that looks at the installed package each time


@dataclass(frozen=True)
class Verdict:
    """What `dvc repro` would do with a stage.

    Attributes:
        stage: its name.
        reasons: why it would run, in words; none if it would not.
        upstream: the stages that would run before it and whose outs it reads.
    """

    stage: str
    reasons: list[str] = field(default_factory=list)
    upstream: list[str] = field(default_factory=list)

    @property
    def runs(self) -> bool:
        """Whether it would run, if the stages before it make something new."""
        return bool(self.reasons or self.upstream)


def status(pipeline: Pipeline) -> list[Verdict]:
    """Every stage of the workspace with its reasons, in dvc.yaml's order.

    A project's stage `code` runs each time, so it is left out.
    """
    found: dict[str, Verdict] = {}
    for name, stage in pipeline.stages.items():
        if name == CODE:
            continue
        before = [up for up in pipeline.upstream(name) if up in found and found[up].runs]
        passing = [up for up in before if SETTINGS in pipeline.stages[up].outs]
        before = [up for up in before if up not in passing]
        found[name] = Verdict(name, list(_reasons(stage, pipeline)), _nearest(before, pipeline))
    return list(found.values())


def _nearest(names: list[str], pipeline: Pipeline) -> list[str]:
    """Those of the stages that no other one of them depends on."""
    above = {up for name in names for up in pipeline.upstream(name)}
    return [name for name in names if name not in above]


def _reasons(stage: Stage, pipeline: Pipeline) -> Iterator[str]:
    if not stage.recorded:
        yield "it has not run yet"
        return
    yield from _settings(stage, pipeline)
    made = {out for other in pipeline.stages.values() for out in other.outs}
    for path in stage.deps:
        if path.startswith(f"{SETTINGS}/"):
            continue  # what it comes to is in the settings
        if not Path(path).exists():
            yield f"{path} is missing"
        elif tree_md5(path) != stage.read.get(path):
            package = path.removeprefix(f"{CODE}/").removesuffix(".md5")
            yield f"{path} was changed by hand" if path in made else f"{package} changed"
    for out in stage.outs:
        if not Path(out).exists():
            yield f"its {out} is missing"
        elif tree_md5(out) != stage.recorded.get(out):
            yield f"its {out} was changed by hand"


def _settings(stage: Stage, pipeline: Pipeline) -> Iterator[str]:
    """Settings that differ from those of the last run, those behind a variant's file too."""
    if SETTINGS in stage.outs:
        was, keys = stage.settings, [*stage.settings]
    else:
        was, keys = _with_row(stage, pipeline), [*pipeline.read_by(stage.name)]
    old = chosen(flat_params(_nested(was)), keys)
    new = chosen(flat_params(pipeline.params), keys)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield f"{key} {old.get(key, UNSET)} -> {new.get(key, UNSET)}"


def _with_row(stage: Stage, pipeline: Pipeline) -> Mapping[str, Any]:
    """The values that the stage read, and those behind the variants' settings when it ran."""
    passing = (s for s in pipeline.stages.values() if SETTINGS in s.outs)
    rows = next((s.settings for s in passing), {})
    return {**rows, **stage.settings}


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *above, last = key.split(".")
        inner = nested
        for part in above:
            inner = inner.setdefault(part, {})
        held = inner.get(last)
        inner[last] = (
            {**held, **value} if isinstance(held, dict) and isinstance(value, dict) else value
        )
    return nested
