"""Finished DVC experiments side by side, with intervals.

Over several training seeds everything is paired by seed and prompt; with one seed each, by prompt:
then the intervals say nothing of the training seed.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mht.core.component import did_you_mean
from mht.core.errors import ConfigError, DataError, UserError
from mht.core.seeds import place
from mht.evaluation.metrics import describe
from mht.evaluation.over_seeds import seeds_difference, seeds_interval
from mht.evaluation.statistics import UNCLEAR, holm, verdict
from mht.evaluation.summary import Evaluated, plain_ends, read_samples, significant
from mht.reports.compare import draws_for
from mht.reports.measured import Measured, measure
from mht.reports.wording import ends
from mht.tracking.content.inputs import seeds_of
from mht.tracking.content.pipeline import read_pipeline

WORKSPACE, SAMPLES = "workspace", "samples.jsonl"


@dataclass(frozen=True)
class Gathered:
    """What is compared.

    Attributes:
        runs: name to an evaluation for each training seed, all of the same prompts.
        seeds: how many training seeds each has.
        baseline: what is compared with unless the user says so.
    """

    runs: Mapping[str, Sequence[Evaluated]]
    seeds: int
    baseline: str


@dataclass(frozen=True)
class Line:
    """One experiment's value of one metric, and how it differs from the baseline's.

    Attributes:
        metric: its name.
        name: of the experiment.
        mean: over seeds and prompts.
        low: of its 95% interval.
        high: of the same.
        difference: to the baseline's; None for the baseline itself, as what follows.
        difference_low: of its 95% interval.
        difference_high: of the same.
        p_adjusted: of the permutation test, for all lines of the table (Holm).
        verdict: better, worse, differs or unclear.
    """

    metric: str
    name: str
    mean: float
    low: float
    high: float
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_adjusted: float | None = None
    verdict: str = "baseline"


@dataclass(frozen=True)
class Table:
    """All lines, metric by metric.

    Attributes:
        lines: the baseline's first in each metric.
        baseline: its name.
        seeds: training seeds of each experiment.
        prompts: of each seed.
    """

    lines: Sequence[Line]
    baseline: str
    seeds: int
    prompts: int


def gather(names: Sequence[str], variant: str = "hybrid") -> Gathered:
    """Read the results of a variant.

    Args:
        names: DVC experiments, revisions, or "workspace"; none stands for the workspace and all DVC
            experiments.
        variant: whose responses to read.

    Raises:
        UserError: a result is not there, or they can't be compared.
    """
    from mht.tracking.content.pipeline import experiments

    known = {} if names else experiments()
    wanted = list(names) or [WORKSPACE, *known]
    found = {name: _results(name, variant) for name in wanted}
    seeds = sorted(set.intersection(*(set(own) for own in found.values())))
    if not seeds:
        raise DataError("the experiments have no training seed in common: set the same base.seed")
    runs = {name: [own[seed] for seed in seeds] for name, own in found.items()}
    if len({tuple(run.ids) for own in runs.values() for run in own}) > 1:
        raise DataError("the experiments were evaluated on different prompts; they can't be paired")
    return Gathered(runs, len(seeds), WORKSPACE if WORKSPACE in runs else wanted[0])


def _results(name: str, variant: str) -> dict[int, Evaluated]:
    """The samples of each training seed: of the workspace, or what DVC's cache has of a revision.

    Raises:
        DataError: they are not there.
    """
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    rev, folder = (None if name == WORKSPACE else name), f"reports/evaluate/{variant}"
    try:
        seeds = seeds_of(read_pipeline(rev).params.get("base") or {})
        places = {seed: place(folder, seeds, seed) / SAMPLES for seed in seeds}
        if rev is None:
            return {seed: read_samples(path) for seed, path in places.items()}
        return {seed: _read_at(rev, path.as_posix()) for seed, path in places.items()}
    except (DvcException, SCMError, OSError) as error:
        what = f"no finished DVC experiment or revision with {folder}"
        raise DataError(f"{name}: {what}: {error}") from None


def _read_at(rev: str, path: str) -> Evaluated:
    from dvc.repo import Repo

    with Repo() as repo, repo.switch(rev):  # in a subfolder of a git repository as well
        text = repo.dvcfs.read_text(f"/{path}", encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / SAMPLES
        file.write_text(text, encoding="utf-8", newline="\n")
        return read_samples(file)


def tabulate(
    found: Gathered,
    *,
    metrics: Sequence[str],
    baseline: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Table:
    """Every experiment against the baseline in every metric.

    Raises:
        UserError: no such baseline, or no such metric.
    """
    against = baseline or found.baseline
    if against not in found.runs:
        close = did_you_mean(against, found.runs)
        raise UserError(
            f"--baseline: no such experiment {against!r}{close}. There are {', '.join(found.runs)}"
        )
    options = {"resamples": resamples, "seed": seed}
    measured = measure(found.runs)
    draws = draws_for(len(metrics) * (len(found.runs) - 1), resamples)
    lines: list[Line] = []
    for metric in metrics:
        values = _values(measured, metric, found.runs)
        names = [against, *(name for name in found.runs if name != against)]
        lines += [_line(metric, name, against, values, options, draws) for name in names]
    adjusted = iter(holm([line.p_adjusted for line in lines if line.p_adjusted is not None]))
    lines = [line if line.p_adjusted is None else _judged(line, next(adjusted)) for line in lines]
    prompts = found.runs[against][0].prompts
    return Table(lines, against, found.seeds, prompts)


def _values(
    measured: Mapping[str, Measured], metric: str, runs: Mapping[str, Sequence[Evaluated]]
) -> Measured:
    known = sorted(name for name, own in measured.items() if own.of.keys() == runs.keys())
    if metric not in known:
        close = did_you_mean(metric, known)
        problem = f"no such metric {metric!r}{close}. Available: {', '.join(known)}"
        raise ConfigError([f"benchmark.metrics: {problem}"], "params.yaml")
    return measured[metric]


def _line(
    metric: str,
    name: str,
    against: str,
    values: Measured,
    options: Mapping[str, Any],
    draws: int,
) -> Line:
    """Before the correction: ``p_adjusted`` is p itself."""
    options = {"statistic": values.statistic, **options}
    data = values.of[name]
    own = seeds_interval(data, **options)
    if name == against:
        return Line(metric, name, *_rounded(own))
    other = values.of[against]
    options["resamples"] = draws
    found = seeds_difference(data, other, **options)
    shown = _rounded((found.difference, found.low, found.high))
    return Line(metric, name, *_rounded(own), *shown, found.p, UNCLEAR)


def _rounded(values: Iterable[float]) -> tuple[float, float, float]:
    first, second, third = map(significant, values)
    return first, second, third


def _judged(line: Line, p: float) -> Line:
    word = verdict(describe(line.metric).direction, line.difference or 0.0, p)
    return Line(**{**asdict(line), "p_adjusted": significant(p), "verdict": word})


def markdown(table: Table) -> str:
    """A table for each metric."""
    over = f"{table.seeds} training seeds and" if table.seeds > 1 else "one training seed,"
    parts = [
        f"Against {table.baseline}; {over} {table.prompts} prompts; 95% intervals; p after Holm's "
        "correction for all lines.\n"
    ]
    for metric in dict.fromkeys(line.metric for line in table.lines):
        entry = describe(metric)
        rows = [[f"{entry.label} {entry.arrow}".strip(), "mean", "difference", "p", "verdict"]]
        rows.append(["---", "---:", "---:", "---:", "---"])
        rows += [_row(line) for line in table.lines if line.metric == metric]
        parts.append("".join(f"| {' | '.join(row)} |\n" for row in rows))
    return "\n".join(parts)


def _row(line: Line) -> list[str]:
    mean = f"{line.mean:.3g} {ends(line.low, line.high, '{:.3g}'.format)}"
    if line.difference is None:
        return [line.name, mean, "", "", line.verdict]
    found = ends(line.difference_low, line.difference_high, "{:.3g}".format)
    p = "" if line.p_adjusted is None else f"{line.p_adjusted:.3g}"
    return [line.name, mean, f"{line.difference:+.3g} {found}", p, line.verdict]


def as_csv(table: Table) -> str:
    """A row for each line; an empty cell is none."""
    file = io.StringIO()
    rows = [plain_ends(asdict(line)) for line in table.lines]
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def as_json(table: Table) -> str:
    """All of it."""
    data = plain_ends(asdict(table))
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
