"""A stage's work for each training seed, one after the other, and its outs from all of them.

A seed that has ended is never done again. After a kill its results wait in the stage's scratch
folder; where the number of seeds has changed, they come from DVC's cache.
"""

from __future__ import annotations

import csv
import functools
import gc
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from mht.core.outputs import replaced, replaced_folder
from mht.core.processes.launched import is_main_process
from mht.core.seeds import place
from mht.tracking.content.kept import kept_outs
from mht.tracking.content.scratch import finished_folder

if TYPE_CHECKING:
    from mht.config import Config
    from mht.tracking import Run

Work = Callable[["Config", "Run", Path], None]
LOOSE = Path(".mht/scratch/loose")  # for a stage that DVC does not know


def over_seeds(config: Config, run: Run, outs: Mapping[str, str], work: Work) -> None:
    """Do a stage's work for each training seed, then write its outs.

    Args:
        config: of all seeds.
        run: of the stage.
        outs: name of a file or folder that the work makes, to the out that it becomes. A folder
            takes those of all seeds; a file is that of the first seed.
        work: gets the settings of one seed, its run, and an empty folder for what it makes. With
            several processes all of them call it; the main one writes.
    """
    from mht.devices.make import on_main

    seeds = config.seeds
    loose = LOOSE / next(iter(outs.values()))
    folders = {seed: _folder(run, seed, loose) for seed in seeds}
    for number, seed in enumerate(seeds, 1):
        done = on_main(functools.partial(_is_done, run, outs, seed, folders[seed]))
        if len(seeds) > 1 and is_main_process():
            kept = ", done before" if done else ""
            print(f"training seed {seed}, {number} of {len(seeds)}{kept}", flush=True)
        if done:
            continue
        with run.of_seed(seed) as own:
            _do(config.of_seed(seed), own, folders[seed], work)
        gc.collect()  # a trainer holds on to itself: its memory is the next one's
    if is_main_process():
        _write_outs(outs, folders, seeds)
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)


def _folder(run: Run, seed: int, loose: Path) -> Path:
    """Where the results of a seed wait for the others."""
    scratch = run.inputs.scratch(seed) if run.inputs else None
    return finished_folder(scratch or loose / str(seed))


def _is_done(run: Run, outs: Mapping[str, str], seed: int, folder: Path) -> bool:
    """Whether the results are there, or could be taken from DVC's cache."""
    if run.inputs is None or run.inputs.scratch(seed) is None:
        shutil.rmtree(folder, ignore_errors=True)  # nothing tells whether it fits
        return False
    if folder.is_dir():
        return True
    kept = kept_outs(run.inputs, seed)
    if kept is None:
        return False
    _take(kept, outs, folder)
    with run.of_seed(seed) as own:
        _tell(own, folder)
    return True


def _take(kept: Mapping[str, Mapping[str, Path]], outs: Mapping[str, str], folder: Path) -> None:
    """Put what the cache has of a seed into the folder of its results."""
    with replaced_folder(folder) as part:
        for name, out in outs.items():
            for path, file in kept.get(out, {}).items():
                target = part / name / path if path else part / name
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(file, target)


def _tell(run: Run, folder: Path) -> None:
    """Log the curves of a seed that was taken from the cache: its run is another one."""
    for file in sorted(folder.glob("plots/*.csv")):
        with file.open(encoding="utf-8", newline="") as rows:
            for row in csv.DictReader(rows):
                step = int(row.pop("step"))
                run.log({name: float(value) for name, value in row.items() if value}, step)


def _do(config: Config, run: Run, folder: Path, work: Work) -> None:
    if not is_main_process():
        work(config, run, folder)
        return
    with replaced_folder(folder) as part:
        work(config, run, part)
    if run.scratch:  # the state that led here
        shutil.rmtree(run.scratch, ignore_errors=True)
        Path(f"{run.scratch}.lock").unlink(missing_ok=True)


def _write_outs(outs: Mapping[str, str], folders: Mapping[int, Path], seeds: Sequence[int]) -> None:
    """Put the results of all seeds into the outs, all of them or none."""
    with ExitStack() as stack:
        for name, out in outs.items():
            first = folders[seeds[0]] / name
            if first.is_file():
                _link(first, stack.enter_context(replaced(out)))
                continue
            whole = stack.enter_context(replaced_folder(out))
            for seed in seeds:
                own = folders[seed] / name
                shutil.copytree(
                    own, place(whole, seeds, seed), copy_function=_link, dirs_exist_ok=True
                )


def _link(source: str | Path, target: str | Path) -> None:
    """The same file at a second place, or a copy where the disk has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
