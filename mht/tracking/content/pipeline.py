"""The pipeline as DVC sees it: what each stage reads and writes, and the content of both.

dvc.yaml is the only place that says so; DVC itself resolves its templates here, so tracking can't
disagree with it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SETTINGS = "settings"  # the folder of the variants' settings, a file each


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline.

    Attributes:
        name: as DVC addresses it, such as ``evaluate@hybrid``.
        cmd: its command line, templates resolved.
        deps: paths it reads, from the repository's root.
        outs: paths it writes, metrics and plots included.
        metrics: those of ``outs`` that are metrics files.
        params: the keys of params.yaml it reads; a section's name stands for all of it.
        recorded: path to DVC's md5 for each out, from dvc.lock; empty if it never ran.
        read: the same for each dep, as it was when the stage ran.
        settings: the values of ``params`` when the stage ran.
    """

    name: str
    cmd: str
    deps: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    recorded: Mapping[str, str] = field(default_factory=dict)
    read: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pipeline:
    """All stages at one revision, with the small files that describe its results.

    Attributes:
        stages: by name, in dvc.yaml's order.
        params: params.yaml as plain data.
        results: path of each metrics file that exists to its data.
    """

    stages: Mapping[str, Stage]
    params: Mapping[str, Any]
    results: Mapping[str, Any]

    def upstream(self, name: str) -> dict[str, Stage]:
        """The stages whose outs reach a stage, directly or not; without itself."""
        found: dict[str, Stage] = {}
        todo = list(self.stages[name].deps) if name in self.stages else []
        while todo:
            dep = todo.pop()
            for stage in self.stages.values():
                if stage.name not in found and any(_overlap(dep, out) for out in stage.outs):
                    found[stage.name] = stage
                    todo += stage.deps
        return {stage: found[stage] for stage in self.stages if stage in found}

    def read_by(self, name: str) -> tuple[str, ...]:
        """The keys of params.yaml that decide a stage, those behind a variant's settings too."""
        stage = self.stages[name]
        if SETTINGS in stage.outs:
            return ()  # it passes them on
        rows = [Path(dep).stem for dep in stage.deps if Path(dep).parent == Path(SETTINGS)]
        given = [look_up(self.params, f"baselines.{row}.like") for row in rows]
        found = [*stage.params, *(f"baselines.{row}" for row in rows), *filter(None, given)]
        return tuple(dict.fromkeys(found))

    def current(self, finished: str, written: Mapping[str, str]) -> dict[str, Stage]:
        """The other stages that `dvc repro` would skip now: nothing they read is new.

        Args:
            finished: the stage that has just run.
            written: path to md5 of its outs, newer than dvc.lock.
        """
        now = {path: md5 for s in self.stages.values() for path, md5 in s.recorded.items()}
        now |= written
        for path in {dep for stage in self.stages.values() for dep in stage.read} - now.keys():
            if Path(path).exists():
                now[path] = tree_md5(path)
        others = {name: stage for name, stage in self.stages.items() if name != finished}
        stale = {name for name, stage in others.items() if not self._unchanged(stage, now)}
        return {
            name: stage
            for name, stage in others.items()
            if name not in stale and not stale & self.upstream(name).keys()
        }

    def _unchanged(self, stage: Stage, now: Mapping[str, str]) -> bool:
        return (
            bool(stage.recorded)
            and all(now.get(path) == stage.read.get(path) for path in stage.deps)
            and all(look_up(self.params, key) == was for key, was in stage.settings.items())
        )

    def stage_of_command(self, command: str) -> Stage | None:
        """The stage with this command line, for a stage started by hand."""
        return next((s for s in self.stages.values() if s.cmd == command), None)


def read_pipeline(rev: str | None = None) -> Pipeline:
    """The pipeline in the workspace or at a git revision or experiment name.

    Raises:
        dvc.exceptions.DvcException: no DVC repository here, or its dvc.yaml is wrong.
        scmrepo.exceptions.SCMError: no such revision.
    """
    from dvc.repo import Repo

    with Repo() as repo, repo.switch(rev) if rev else nullcontext():
        stages = dict(_read_stages(repo))
        metrics = [path for stage in stages.values() for path in stage.metrics]
        results = {path: _read(repo, path) for path in metrics}
        params = _read(repo, "params.yaml") or {}
    return Pipeline(stages, params, {p: data for p, data in results.items() if data is not None})


def experiments(*, all_commits: bool = True) -> dict[str, str]:
    """Name to commit of every DVC experiment in this repository, or of those that began at HEAD."""
    from dvc.repo import Repo

    with Repo() as repo:
        found = repo.experiments.ls(all_commits=all_commits)
    return {name: str(rev) for group in found.values() for name, rev in group}


def _read_stages(repo: Any) -> Iterable[tuple[str, Stage]]:
    from dvc.dependency import ParamsDependency
    from dvc.stage import PipelineStage

    def place(item: Any) -> str:
        return str(os.path.relpath(item.fs_path, repo.root_dir)).replace(os.sep, "/")

    for stage in repo.index.stages:
        if not isinstance(stage, PipelineStage):
            continue
        files = [d for d in stage.deps if not isinstance(d, ParamsDependency) and _local(d, repo)]
        settings = [d for d in stage.deps if isinstance(d, ParamsDependency)]
        outs = [out for out in stage.outs if _local(out, repo)]
        home = str(os.path.relpath(stage.path, repo.root_dir))
        name = stage.name if home == "dvc.yaml" else f"{home}:{stage.name}"  # as in DVC_STAGE
        yield (
            name,
            Stage(
                name=name,
                cmd=stage.cmd if isinstance(stage.cmd, str) else "\n".join(stage.cmd),
                deps=tuple(place(dep) for dep in files),
                outs=tuple(place(out) for out in outs),
                metrics=tuple(place(out) for out in outs if out.metric),
                params=tuple(key for dep in settings for key in dep.params),
                recorded={place(o): o.hash_info.value for o in outs if o.hash_info.value},
                read={place(d): d.hash_info.value for d in files if d.hash_info.value},
                settings={k: v for d in settings for k, v in (d.hash_info.value or {}).items()},
            ),
        )


def look_up(params: Any, key: str) -> Any:
    """The value at a dotted path of nested settings; None where there is none."""
    for part in key.split("."):
        params = params.get(part) if isinstance(params, Mapping) else None
    return params


def _local(item: Any, repo: Any) -> bool:
    return bool(item.fs.protocol == repo.fs.protocol)


def _read(repo: Any, path: str) -> Any:
    """The data of a small YAML or JSON file of the revision, None where there is none."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    place = repo.fs.join(repo.root_dir, path)
    try:
        text = repo.fs.read_text(place, encoding="utf-8")
        return json.loads(text) if path.endswith(".json") else YAML(typ="safe").load(text)
    except (FileNotFoundError, ValueError, YAMLError):
        return None


def _overlap(a: str, b: str) -> bool:
    return a == b or a.startswith(f"{b}/") or b.startswith(f"{a}/")


def tree_md5(path: str | Path) -> str:
    """DVC's own hash of a file or folder, so a run can be looked up by what dvc.lock says.

    A folder's is the md5 of the sorted list of its files' md5s and relative paths, plus ``.dir``;
    what .dvcignore names does not count.
    """
    path = Path(path)
    return file_md5(path) if path.is_file() else files_md5(files_in(path))


def files_in(folder: Path) -> dict[str, str]:
    """The md5 of each file in a folder, by its relative path; without what .dvcignore names."""
    ignored = _ignored()
    files = [f for f in folder.rglob("*") if f.is_file() and not ignored.match_file(f)]
    return {f.relative_to(folder).as_posix(): file_md5(f) for f in files}


def files_md5(files: Mapping[str, str]) -> str:
    """DVC's hash of a folder with these files: relative path to md5."""
    entries = [{"md5": md5, "relpath": path} for path, md5 in sorted(files.items())]
    listing = json.dumps(entries, sort_keys=True)
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


def file_md5(path: Path) -> str:
    """The md5 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _ignored() -> Any:
    from pathspec import GitIgnoreSpec

    rules = Path(".dvcignore")
    lines = rules.read_text(encoding="utf-8").splitlines() if rules.exists() else []
    return GitIgnoreSpec.from_lines([".git/", ".hg/", ".dvc/", *lines])
