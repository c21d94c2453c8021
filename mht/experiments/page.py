"""The report's page for a state of a project, alone or against another."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mht.config import Config
from mht.core.component import build
from mht.core.errors import ConfigError, DataError
from mht.experiments.compare import gather
from mht.experiments.revisions import ABSENT, State, about, changed
from mht.reports.benchmark import comparison_of
from mht.reports.compare import compared
from mht.reports.costs import costs_of, looks_of
from mht.reports.figures import plots
from mht.reports.learning.curves import read_curves
from mht.reports.page.contents import html
from mht.reports.read import Results
from mht.reports.records import Comparison, Entry
from mht.tracking.states import Made, lineage
from mht.tracking.store import Store

READ = ("reports/evaluate", "metrics/evaluate", "plots")  # what the benchmark reads
ID = 8  # digits of a run's id that tell it from others


def pair_page(baseline: State, state: State, store: Store | None = None, **options: Any) -> str:
    """One page that needs no other file and no network.

    Args:
        baseline: what is compared with.
        state: what is compared.
        store: knows the MLflow runs that made them; None names none.
        **options: of `mht.reports.compare.compared`, but for the variants.

    Raises:
        DataError: results are missing, or can't be paired.
        ConfigError: an unknown metric.
    """
    pair = compared(_results(baseline, state), **_names(baseline, state), **options)
    light, dark = plots.figures(pair), plots.figures(pair, dark=True)
    return html(
        pair,
        light,
        dark,
        eyebrow=f"MHT: {state.name} against {baseline.name}",
        about=_about(pair, [baseline, state], store),
        changed=[[key, *values] for key, values in changed(state, baseline).items()],
    )


def report_page(state: State, last: State | None, store: Store | None = None) -> str:
    """The benchmark's page with where it comes from, and what changed since another report.

    The page in ``reports/benchmark`` is an out of DVC, so that it holds no date and no run.

    Args:
        state: whose report.
        last: the state of the other report; None compares the settings with none.
        store: knows the MLflow runs that made them; None names none.

    Raises:
        DataError: results are missing.
        ConfigError: the settings are of another version.
    """
    config = build(Config, state.pipeline.params, source=f"params.yaml of {state.name}")
    with _root(state) as root:
        comparison = comparison_of(config, root)
    both = [last, state] if last else [state]
    light, dark = plots.figures(comparison), plots.figures(comparison, dark=True)
    changes = changed(state, last).items() if last else ()
    return html(
        comparison,
        light,
        dark,
        eyebrow="MHT benchmark",
        about=_about(comparison, both, store),
        changed=[[key, *values] for key, values in changes] if last else None,
    )


@contextmanager
def _root(state: State) -> Iterator[Path]:
    """A folder with what the benchmark reads of a state."""
    if state.rev is None:
        yield Path()
        return
    with tempfile.TemporaryDirectory() as root:
        for name in READ:
            try:
                with state.files(name) as found:
                    shutil.copytree(found, Path(root, name))
            except FileNotFoundError:
                raise DataError(f"{state.name}: it has no {name}: `dvc pull` may have it") from None
        yield Path(root)


def _names(baseline: State, state: State) -> dict[str, Any]:
    return {"subject": state.name, "baseline": baseline.name}


def _results(baseline: State, state: State) -> Results:
    """What is left of both, as the benchmark reads two variants."""
    found = gather(baseline, [state])
    seeds = [seed for seed in state.seeds if seed in baseline.seeds]
    entries = [_entry(one) for one in (baseline, state)]
    with tempfile.TemporaryDirectory() as folder:
        for one in (baseline, state):
            _copy_curves(one, Path(folder))
        curves = read_curves(folder, [entry.name for entry in entries], seeds)
    costs, looks = costs_of(entries, curves, len(seeds)), looks_of(entries, curves)
    return Results(entries, seeds, found.runs, {}, curves, looks, costs)


def _copy_curves(state: State, folder: Path) -> None:
    try:
        with state.files(f"plots/{state.variant}") as found:
            shutil.copytree(found, folder / "plots" / state.name)
    except FileNotFoundError:
        raise DataError(
            f"{state.name}: plots/{state.variant} is not in its commit: commit what dvc repro left"
        ) from None


def _entry(state: State) -> Entry:
    """The row of a state: its curves begin after those of the model it starts from."""
    try:
        variant = build(Config, state.pipeline.params).variants[state.variant]
    except (ConfigError, KeyError):  # settings of another version: its steps are not known
        return Entry(state.name)
    size = variant.settings.batch_size if variant.settings else 0
    return Entry(state.name, "base", variant.optimizer_steps, batch_size=size)


def _about(pair: Comparison, states: Sequence[State], store: Store | None) -> list[dict[str, str]]:
    """A row for each state: where it comes from, and which runs made it."""
    return [
        {
            "name": state.name,
            "subject": state.variant,
            **{key: str(value) for key, value in _origin(state).items()},
            "seeds": ", ".join(map(str, pair.seeds)),
            "runs": " ".join(_runs(state, store)),
        }
        for state in states
    ]


def _origin(state: State) -> Mapping[str, str]:
    params = state.pipeline.params
    model, data = (params.get(section) or {} for section in ("model", "data"))
    source = data.get("source") or {}
    return {
        "commit": "",
        "date": "",
        **about(state),
        "model": _named(model.get("name", ABSENT)),
        "data": _named(source),
    }


def _named(value: Any) -> str:
    """A model's or source's name: itself, or its type with what tells it from others."""
    if not isinstance(value, Mapping):
        return str(value)
    telling = next((str(value[k]) for k in ("path", "name", "architecture") if k in value), "")
    return f"{value.get('type', '')} {telling}".strip()


def _runs(state: State, store: Store | None) -> list[str]:
    wanted = (f"ppo@{state.variant}", f"evaluate@{state.variant}")
    made: list[Made] = lineage(store, state.pipeline) if store else []
    return [f"{one.stage} {one.run.id[:ID]}" for one in made if one.stage in wanted and one.run]
