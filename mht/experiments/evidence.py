"""All benchmarks over seeds that the project's claims rest on, one after the other, by one command.

Every one of them goes on where it was, so does the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mht.checks.preflight import check
from mht.config import Config
from mht.config.evaluation import MOST_SEEDS
from mht.config.overlays.overlay import load_experiment, read_mapping
from mht.core.component import Section, build
from mht.core.errors import ConfigError
from mht.core.progress import track
from mht.experiments.seeds import missing_results, run_seeds
from mht.experiments.variants import variants_of
from mht.tasks.settings import experiment_file
from mht.tracking.seeds import NullSeeds, SeedsRun

FOLDER = Path("reports/seeds")


class Item(Section):
    """One benchmark over seeds.

    Attributes:
        experiment: a task, or a file of settings, to lay over params.yaml.
        variants: another one, laid over both, with ``benchmark.variants``; null has the standard
            variants alone.
        seeds: how many; null takes ``benchmark.seeds``.
    """

    experiment: str
    variants: str | None = None
    seeds: Annotated[int, Field(gt=0, le=MOST_SEEDS)] | None = None


class Evidence(Section):
    """The file of all of them.

    Attributes:
        benchmarks: in order.
    """

    benchmarks: list[Item]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark over seeds that has been checked.

    Attributes:
        config: all its settings.
        folder: of its results.
        seeds: to train.
    """

    config: Config
    folder: Path
    seeds: Sequence[int]


def plan(
    experiment: str | Path,
    variants: str | Path | None = None,
    *,
    params: str | Path = "params.yaml",
    out: str | Path | None = None,
    count: int | None = None,
) -> Benchmark:
    """Read and check a benchmark over seeds: its settings, its variants, and the machine.

    Raises:
        UserError: with every mistake.
    """
    overlays = [experiment, *([variants] if variants else [])]
    config = load_experiment([experiment_file(overlay) for overlay in overlays], params)
    for variant in variants_of(config):
        check(variant.config)
    name = "-".join(Path(overlay).stem for overlay in overlays)
    seeds = _seeds(config.base.seed, count or config.benchmark.seeds)
    return Benchmark(config, Path(out) if out else FOLDER / name, seeds)


def _seeds(first: int, count: int) -> range:
    if first + count > 2**63:
        what = f"{count} seeds from it on are not all below 2**63: lower it, got {first}"
        raise ConfigError([f"base.seed: {what}"])
    return range(first, first + count)


def tracking_of(benchmark: Benchmark, *, tracked: bool) -> SeedsRun:
    """Where its runs go."""
    if not tracked:
        return NullSeeds()
    config = benchmark.config
    return SeedsRun(benchmark.folder.name, config.model_dump(mode="json"), config.base.experiment)


def read(file: str | Path, params: str | Path = "params.yaml") -> list[Benchmark]:
    """Read and check all benchmarks of a file.

    Raises:
        ConfigError: with every mistake in any of them.
    """
    wanted = build(Evidence, read_mapping(file), source=str(file))
    found: list[Benchmark] = []
    problems: list[str] = []
    for i, item in enumerate(wanted.benchmarks):
        try:
            found.append(plan(item.experiment, item.variants, params=params, count=item.seeds))
        except ConfigError as error:
            problems += [f"benchmarks[{i}]: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems, str(file))
    return found


def rebuild(
    benchmarks: Sequence[Benchmark], *, tracked: bool
) -> Iterator[tuple[Benchmark, dict[str, Any]]]:
    """Run what has no result yet, with one bar over all of it.

    Yields:
        Each benchmark with its summary.
    """
    todo = [missing_results(b.config, b.folder, b.seeds) for b in benchmarks]
    with track(range(0), "evidence", total=sum(todo)) as bar:
        for number, (benchmark, count) in enumerate(zip(benchmarks, todo, strict=True), 1):
            end = sum(todo[:number])
            print(
                f"{number} of {len(benchmarks)}: {benchmark.folder}, {count} variants to train "
                f"over {len(benchmark.seeds)} seeds",
                flush=True,
            )
            with tracking_of(benchmark, tracked=tracked) as runs:
                summary = run_seeds(
                    benchmark.config, benchmark.folder, seeds=benchmark.seeds, tracking=runs,
                    done=bar.advance,
                )  # fmt: skip
            bar.advance(end - bar.done)  # what another benchmark had trained meanwhile
            yield benchmark, summary
