"""States of a project that can be compared: the workspace, commits, branches, experiments."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mht.core.errors import DataError
from mht.core.seeds import place
from mht.evaluation.summary import Evaluated, read_samples
from mht.tracking.content.inputs import seeds_of
from mht.tracking.content.pipeline import Pipeline, experiments, read_pipeline
from mht.tracking.names import flat_params

WORKSPACE, HEAD, SAMPLES = "workspace", "HEAD", "samples.jsonl"
ABSENT = "unset"


@dataclass(frozen=True)
class State:
    """One state of the project.

    Attributes:
        name: "workspace", or what git or DVC calls it.
        variant: whose results are meant.
    """

    name: str
    variant: str = "hybrid"

    @classmethod
    def of_head(cls, variant: str) -> State | None:
        """That of the last commit; None where there is none, or without results."""
        state = cls(HEAD, variant)
        return state if _git("rev-parse", "--verify", "-q", HEAD) and state.content else None

    @property
    def rev(self) -> str | None:
        """The revision; None is the workspace."""
        return None if self.name == WORKSPACE else self.name

    @property
    def folder(self) -> str:
        """Where the variant's responses are."""
        return f"reports/evaluate/{self.variant}"

    @cached_property
    def pipeline(self) -> Pipeline:
        """Its stages and settings.

        Raises:
            DataError: there is no such state.
        """
        from dvc.exceptions import DvcException
        from scmrepo.exceptions import SCMError

        try:
            return read_pipeline(self.rev)
        except (DvcException, SCMError) as error:
            raise DataError(f"{self.name}: no DVC experiment or revision: {error}") from None

    @property
    def settings(self) -> dict[str, str]:
        """Its params.yaml, flat."""
        return flat_params(self.pipeline.params)

    @property
    def content(self) -> str | None:
        """The hash of the variant's results; None where it has none."""
        for stage in self.pipeline.stages.values():
            if self.folder in stage.recorded:
                return stage.recorded[self.folder]
        return None

    @property
    def seeds(self) -> Sequence[int]:
        """Its training seeds."""
        return seeds_of(self.pipeline.params.get("base") or {})

    def results(self) -> dict[int, Evaluated]:
        """The responses of each training seed, from the workspace or from DVC's cache.

        Raises:
            DataError: they are not there.
        """
        seeds = self.seeds
        try:
            with self.files(self.folder) as folder:
                places = {seed: place(folder, seeds, seed) for seed in seeds}
                return {seed: read_samples(path / SAMPLES) for seed, path in places.items()}
        except OSError as error:
            what = f"no finished DVC experiment or revision with {self.folder}"
            raise DataError(f"{self.name}: {what}: {error}: `dvc pull` may have it") from None

    @contextmanager
    def files(self, folder: str) -> Iterator[Path]:
        """A folder of this state, copied out of git and DVC's cache; that of the workspace itself.

        Raises:
            OSError: the state has no such folder, or the cache has lost it.
        """
        if self.rev is None:
            yield Path(folder)
            return
        from dvc.repo import Repo

        with tempfile.TemporaryDirectory() as temporary:
            with Repo() as repo, repo.switch(self.rev):
                repo.dvcfs.get(f"/{folder}", temporary, recursive=True)
            inner = Path(temporary, Path(folder).name)
            yield inner if inner.is_dir() else Path(temporary)


def changed(state: State, baseline: State) -> dict[str, tuple[str, str]]:
    """Setting to its values in the baseline and in a state, where they differ.

    The number of seeds is left out: more of them try the same.
    """
    old, new = baseline.settings, state.settings
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return {
        key: (old.get(key, ABSENT), new.get(key, ABSENT)) for key in keys if key != "base.seeds"
    }


def worded(changes: Mapping[str, tuple[str, str]]) -> list[str]:
    """One text for each changed setting.

    >>> worded({"ppo.lr": ("0.1", "0.2")})
    ['ppo.lr 0.1 -> 0.2']
    """
    return [f"{key} {old} -> {new}" for key, (old, new) in changes.items()]


def states(names: Sequence[str], baseline: str | None, variant: str) -> tuple[State, list[State]]:
    """The state to compare with, and those to compare.

    Args:
        names: experiments, revisions or "workspace". None: the workspace, where it differs, and
            the experiments that began at HEAD.
        baseline: None is HEAD if it has results, else the workspace.
        variant: whose results.

    Raises:
        DataError: there is nothing to compare, or no such state.
    """
    against = State(baseline or _usual(variant), variant)
    if names:
        others = [State(name, variant) for name in names if name != against.name]
    else:
        others = [State(name, variant) for name in experiments(all_commits=False)]
        here = State(WORKSPACE, variant)
        known = {other.content for other in (against, *others)}
        if against.name != WORKSPACE and here.content not in known:
            others.append(here)
    if not others:
        raise DataError(
            f"nothing to compare with {against.name}: try `dvc exp run -S ppo.kl_coef=0.2`, or "
            "name experiments, commits or branches"
        )
    return against, others


def _usual(variant: str) -> str:
    return HEAD if State.of_head(variant) else WORKSPACE


def about(state: State) -> dict[str, str]:
    """What tells a reader which state it is: its commit and the date of that."""
    from dvc.repo import Repo
    from dvc.scm import resolve_rev

    with Repo() as repo:
        if repo.scm.no_commits:
            return {"commit": "none yet", "date": ""}
        rev = resolve_rev(repo.scm, state.rev or HEAD)
    found = _git("log", "-1", "--format=%h%x00%cd", "--date=format:%Y-%m-%d %H:%M", rev)
    commit, _, date = found.partition("\0")
    more = " and changes" if state.rev is None and _git("status", "--porcelain") else ""
    return {"commit": f"{commit}{more}", "date": date}


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()
