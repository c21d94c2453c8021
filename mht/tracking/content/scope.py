"""Which stages a `dvc repro` was asked for, and which of them it has still to run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from mht.tracking.content.pipeline import Pipeline

COMMANDS = ("repro", "reproduce", "run")  # the last one as in `dvc exp run`


def remaining(
    pipeline: Pipeline,
    words: Sequence[str],
    own: str,
    written: Mapping[str, str],
    ran: Collection[str],
) -> list[str]:
    """The stages that DVC will still run after one that has just ended well.

    Args:
        pipeline: as it was when that stage began.
        words: DVC's command line.
        own: the stage.
        written: path to md5 of its outs.
        ran: the stages that have run in this `dvc` already.
    """
    options = words[_start(words) :]
    current = pipeline.current(own, written)
    forced = any(word in ("-f", "--force") for word in options)
    done = {own, *ran} if forced else {own, *current}
    return [name for name in _asked_for(pipeline, options) if name not in done]


def _start(words: Sequence[str]) -> int:
    """Behind the command's own word; what is before it names the program."""
    return next((i + 1 for i, word in enumerate(words) if word in COMMANDS), len(words))


def _asked_for(pipeline: Pipeline, options: Sequence[str]) -> list[str]:
    """In the pipeline's order; all stages where no target is named."""
    targets = [
        name
        for name in pipeline.stages
        for word in options
        if word.removeprefix("dvc.yaml:") in (name, name.partition("@")[0])
    ]
    if not targets:
        return list(pipeline.stages)
    if "-s" in options or "--single-item" in options:
        return targets
    if "--downstream" in options:
        below = {n for n in pipeline.stages if {*targets} & {n, *pipeline.upstream(n)}}
        return [name for name in pipeline.stages if name in below]
    above = {name for target in targets for name in pipeline.upstream(target)}
    return [name for name in pipeline.stages if name in above | {*targets}]
