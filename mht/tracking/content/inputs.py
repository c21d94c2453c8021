"""What a stage is about to do, by content: what it reads, for each training seed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mht.core.seeds import FOLDER, own_files
from mht.tracking import names
from mht.tracking.content.pipeline import (
    Pipeline,
    Stage,
    files_in,
    files_md5,
    read_pipeline,
    tree_md5,
)
from mht.tracking.content.scratch import fingerprint, finished_folder, scratch_folder, start_over

SEEDED = "models/"  # outs with a folder for each further training seed
COUNT = "base.seeds"  # how many there are decides nothing of any one of them


@dataclass(frozen=True)
class StageInputs:
    """What a stage is about to do.

    Attributes:
        stage: what dvc.yaml says of it.
        pipeline: as it is when the stage begins.
        everything: all flat parameters.
        params: those that the stage reads.
        read: path to md5 of its deps.
        models: of those deps that have files of several training seeds, path to file to md5.
        seeds: the training seeds.
    """

    stage: Stage
    pipeline: Pipeline
    everything: Mapping[str, str]
    params: Mapping[str, str]
    read: Mapping[str, str]
    models: Mapping[str, Mapping[str, str]]
    seeds: Sequence[int]

    def read_by(self, seed: int) -> dict[str, str]:
        """Path to md5 of the deps, of models only what one training seed reads."""
        own = {path: seed_md5(files, self.seeds, seed) for path, files in self.models.items()}
        return {**self.read, **own}

    def fingerprint(self, seed: int | None = None) -> str:
        """Of all that decides the outcome of one training seed, the first one if None."""
        first = self.seeds[0]
        seed = first if seed is None else seed
        settings = {key: value for key, value in self.params.items() if key != COUNT}
        further = {} if seed == first else {"seed": str(seed)}
        return fingerprint(self.stage.cmd, self.read_by(seed), {**settings, **further})

    def scratch(self, seed: int | None = None) -> Path | None:
        """The folder for what a killed run leaves of a seed for the next one.

        None where dvc.yaml does not list what the stage reads: the state's fit could not be
        checked.
        """
        if not self.read:
            return None
        return scratch_folder(self.stage.name, self.fingerprint(seed))

    def goes_on(self, seed: int | None = None) -> bool:
        """Whether a killed run of exactly this has left something."""
        place = self.scratch(seed)
        return place is not None and (place.is_dir() or finished_folder(place).is_dir())


def seed_md5(files: Mapping[str, str], seeds: Sequence[int], seed: int) -> str:
    """The hash of one training seed's part of a folder; of all of it where no seed has its own."""
    has_parts = any(path.startswith(f"{FOLDER}/") for path in files)
    return files_md5(own_files(files, seeds, seed) if has_parts else files)


def read_inputs(name: str, params: Mapping[str, Any]) -> StageInputs:
    """What this process, a stage, is about to do.

    Args:
        name: of the stage, if neither DVC nor dvc.yaml know it.
        params: all settings, nested.
    """
    pipeline = _pipeline_here()
    stage = _this_stage(pipeline, name)
    flat = names.flat_params(params)
    known = pipeline.stages.get(stage.name)
    keys = (pipeline.read_by(stage.name) if known else ()) or stage.params
    own = names.chosen(flat, keys) if keys else flat
    deps = [path for path in stage.deps if Path(path).exists()]
    models = {p: files_in(Path(p)) for p in deps if p.startswith(SEEDED) and Path(p).is_dir()}
    read = {p: files_md5(models[p]) if p in models else tree_md5(p) for p in deps}
    found = StageInputs(stage, pipeline, flat, own, read, models, seeds_of(params.get("base", {})))
    start_over(place for seed in found.seeds if (place := found.scratch(seed)))
    return found


def seeds_of(base: Mapping[str, Any]) -> Sequence[int]:
    """The training seeds that a section ``base`` asks for."""
    first = int(base.get("seed", 0))
    return range(first, first + int(base.get("seeds", 1)))


def _pipeline_here() -> Pipeline:
    from dvc.exceptions import DvcException

    try:
        return read_pipeline()
    except DvcException:  # no DVC here, or the user is editing dvc.yaml: DVC itself will say so
        return Pipeline({}, {}, {})


def _this_stage(pipeline: Pipeline, name: str) -> Stage:
    address = os.environ.get("DVC_STAGE")
    if address:
        return pipeline.stages.get(address) or Stage(address, cmd="")
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    command = " ".join(["python -m", spec.name, *sys.argv[1:]]) if spec else ""
    return pipeline.stage_of_command(command) or Stage(name, cmd=command)
