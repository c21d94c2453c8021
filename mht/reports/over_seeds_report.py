"""The tables of a benchmark over seeds, from the results that each variant left for each seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mht.core.component import did_you_mean
from mht.core.errors import ConfigError, DataError
from mht.evaluation.metrics import describe
from mht.evaluation.over_seeds import Verdict, per_seed, seeds_interval, who_wins
from mht.evaluation.statistics import STATISTICS, Floats, verdict
from mht.evaluation.summary import Evaluated, read_samples, significant, write_json
from mht.reports.figures.over_seeds_curves import as_csv, bands, curves_png, front_png
from mht.reports.learning.reach import Curve
from mht.reports.learning.reach_table import reach_rows, reach_sentence, reach_summary
from mht.reports.wording import ends

RESULT, SAMPLES = "result.json", "samples.jsonl"
REPORT_FILES = ("summary.json", "table.md", "curves.csv", "curves.png", "front.png")
FRONT = ("kl_nats", "reward")
COSTS = {
    "optimizer_steps": "optimiser steps",
    "sampled_tokens": "sampled tokens",
    "seconds": "seconds of training",
    "cpu_seconds": "the same in CPU seconds",
}


class Values(NamedTuple):
    """A metric's values (k, S, P) for each variant, and the statistic that makes a number of k."""

    of: dict[str, Floats]
    statistic: str


def write_report(
    folder: str | Path,
    *,
    metrics: Sequence[str],
    seeds: Sequence[int],
    variants: Sequence[str],
    subject: str = "hybrid",
    reach: Mapping[str, Any] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    split: str = "test",
) -> dict[str, Any]:
    """Write what `REPORT_FILES` names into the folder of a benchmark over seeds.

    Curves and the front are drawn where there are learning curves, and KL beside a reward.

    Args:
        folder: with ``seed_<n>/<variant>/``.
        metrics: those to show, in order; ``benchmark.metrics``.
        seeds: training seeds to read.
        variants: to read.
        subject: the variant that all others but "base" are compared with.
        reach: metric and score; without a score it is left out.
        resamples: of intervals and tests.
        seed: of the same.
        settings: what the variants are, as plain data, to be kept in the summary.
        split: whose prompts were answered; ``evaluate.split``.

    Returns:
        What ``summary.json`` holds.

    Raises:
        DataError: a result is missing or broken, or the prompts differ.
        ConfigError: a metric that there is not.
    """
    folder = Path(folder)
    places = {name: [folder / f"seed_{n}" / name for n in seeds] for name in variants}
    found = {name: [read_samples(p / SAMPLES) for p in own] for name, own in places.items()}
    _check_prompts([run for runs in found.values() for run in runs])
    measured = {name: metric_values(found, name) for name in metrics}
    curves = read_curves(folder, seeds=seeds, variants=variants)
    verdicts = who_wins(
        {name: values.of for name, values in measured.items()},
        [(subject, other) for other in asked_of(variants, subject)],
        directions={name: describe(name).direction for name in metrics},
        statistics={name: values.statistic for name, values in measured.items()},
        resamples=resamples,
        seed=seed,
    )
    summary = {
        "seeds": list(seeds),
        "subject": subject,
        "variants": {name: (settings or {}).get(name, {}) for name in variants},
        "prompts": found[subject][0].prompts,
        "responses_per_prompt": found[subject][0].rounds,
        "split": split,
        "budget": {name: _budget(own) for name, own in places.items()},
        "metrics": {name: _figures(v, resamples, seed) for name, v in measured.items()},
        "comparisons": [_line(found) for found in verdicts],
        "resamples": resamples,
        "seed": seed,
        "reach": _reach(curves, reach or {}, subject, resamples, seed),
    }
    write_json(folder / "summary.json", summary)
    (folder / "table.md").write_text(markdown(summary), encoding="utf-8", newline="\n")
    _draw(folder, found, curves, summary, resamples, seed)
    return summary


def asked_of(variants: Iterable[str], subject: str) -> list[str]:
    """Whom the subject is compared with: all others but the untrained base model.

    >>> asked_of(["base", "sft_only", "hybrid"], "hybrid")
    ['sft_only']
    """
    return [name for name in variants if name not in (subject, "base")]


def read_curves(
    folder: Path, *, seeds: Sequence[int], variants: Iterable[str]
) -> dict[str, list[Curve]]:
    """Variant to the learning curve of each seed, as their results have it.

    Raises:
        DataError: a result is missing or broken.
    """
    return {
        name: [read_result(folder / f"seed_{seed}" / name / RESULT)["curve"] for seed in seeds]
        for name in variants
    }


def _reach(
    curves: Mapping[str, Sequence[Curve]],
    reach: Mapping[str, Any],
    subject: str,
    resamples: int,
    seed: int,
) -> dict[str, Any] | None:
    if reach.get("score") is None:
        return None
    options: dict[str, Any] = {"subject": subject, "resamples": resamples, "seed": seed}
    return reach_summary(curves, metric=reach["metric"], score=reach["score"], **options)


def _draw(
    folder: Path,
    found: Mapping[str, Sequence[Evaluated]],
    curves: Mapping[str, Sequence[Curve]],
    summary: Mapping[str, Any],
    resamples: int,
    seed: int,
) -> None:
    """Write the curves and the front."""
    spread = bands(curves, resamples=resamples, seed=seed)
    (folder / "curves.csv").write_text(as_csv(spread), encoding="utf-8", newline="\n")
    if spread:
        wanted = summary["reach"] and summary["reach"]["score"]
        (folder / "curves.png").write_bytes(curves_png(spread, wanted))
    if all(set(FRONT) <= set(run.per_sample) for runs in found.values() for run in runs):
        figures = {m: _figures(metric_values(found, m), resamples, seed) for m in FRONT}
        ends = {name: {m: figures[m][name] for m in FRONT} for name in found}
        (folder / "front.png").write_bytes(front_png(ends))


def final_figures(folder: Path) -> dict[str, float]:
    """Every metric's value of one variant and seed, from its samples."""
    run = read_samples(folder / SAMPLES)
    found = {}
    for name, (columns, statistic) in run.units().items():
        data = np.asarray(columns, float)
        known = data[:, ~np.isnan(data).any(axis=0)]
        if known.size:
            found[name] = significant(float(STATISTICS[statistic](*known)))
    return found


def metric_values(found: Mapping[str, Sequence[Evaluated]], metric: str) -> Values:
    """One metric of all variants and seeds; units without a value somewhere are left out.

    Raises:
        ConfigError: there is no such metric.
    """
    made = {name: [run.units() for run in runs] for name, runs in found.items()}
    known = sorted(set.intersection(*(set(one) for runs in made.values() for one in runs)))
    if metric not in known:
        close = did_you_mean(metric, known)
        problem = f"no such metric {metric!r}{close}. Available: {', '.join(known)}"
        raise ConfigError([f"benchmark.metrics: {problem}"], "params.yaml")
    arrays = {
        name: np.stack([np.asarray(one[metric].columns, float) for one in runs], axis=1)
        for name, runs in made.items()
    }
    kept = ~np.any([np.isnan(array).any(axis=(0, 1)) for array in arrays.values()], axis=0)
    if not kept.any():
        raise DataError(f"benchmark.metrics: no prompt has a value of {metric!r} in every run")
    statistic = next(iter(made.values()))[0][metric].statistic
    return Values({name: array[:, :, kept] for name, array in arrays.items()}, statistic)


def markdown(summary: Mapping[str, Any]) -> str:
    """The tables: costs and means of every variant, and who wins on what."""
    variants = list(summary["budget"])
    rows = [["", *variants], ["---", *["---:"] * len(variants)]]
    for key, label in COSTS.items():
        costs = [summary["budget"][name][key] for name in variants]
        rows.append([label, *(f"{cost['mean']:,.4g}" for cost in costs)])
    for metric, of in summary["metrics"].items():
        entry = describe(metric)
        cells = (of[name] for name in variants)
        shown = [f"{c['mean']:.3g} {ends(c['low'], c['high'], '{:.3g}'.format)}" for c in cells]
        rows.append([f"{entry.label} {entry.arrow}".strip(), *shown])
        rows.append(["- interquartile mean", *(f"{of[name]['iqm']:.3g}" for name in variants)])
    split = summary.get("split", "test")
    rounds = summary.get("responses_per_prompt", 1)
    each = f" ({rounds} responses each)" if rounds > 1 else ""
    asked = f"{summary['prompts']} {'' if split == 'test' else f'{split} '}prompts{each}"
    head = (
        f"{len(summary['seeds'])} seeds, {asked}. Means over seeds with 95% "
        "intervals over seeds and prompts.\n\n"
        if len(summary["seeds"]) > 1
        else f"1 seed, {asked}. Means with 95% intervals over prompts; p is of other prompts, "
        "and nothing says what another seed would do.\n\n"
    )
    tables = [_table(rows), _table(_comparison_rows(summary["comparisons"]))]
    if reach := summary.get("reach"):
        tables.append(f"{reach_sentence(reach)}\n\n{_table(reach_rows(reach))}")
    return head + "\n".join(tables)


def _comparison_rows(comparisons: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = [["metric", "compared", "difference", "p (Holm)", "d", "Cliff's delta", "winner"]]
    rows.append(["---", "---", "---:", "---:", "---:", "---:", "---"])
    for line in comparisons:
        effect = "-" if line["cohens_d"] is None else f"{line['cohens_d']:.2f}"
        rows.append(
            [
                describe(line["metric"]).label,
                f"{line['a']} - {line['b']}",
                f"{line['difference']:+.3g} {ends(line['low'], line['high'], '{:.3g}'.format)}",
                f"{line['p_adjusted']:.3g}",
                effect,
                f"{line['cliffs_delta']:+.2f}",
                line["winner"] or verdict("neither", line["difference"], line["p_adjusted"]),
            ]
        )
    return rows


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _line(line: Verdict) -> dict[str, Any]:
    found = {k: v if v is None else significant(v) for k, v in line.found._asdict().items()}
    own = {key: getattr(line, key) for key in ("metric", "a", "b", "winner")}
    return {**own, **found, "p_adjusted": significant(line.p_adjusted)}


def _figures(values: Values, resamples: int, seed: int) -> dict[str, Any]:
    figures = {}
    for name, array in values.of.items():
        options: dict[str, Any] = {"statistic": values.statistic, "resamples": resamples}
        mean = seeds_interval(array, **options, seed=seed)
        middle = seeds_interval(array, **options, seed=seed, average="iqm")
        figures[name] = {
            **{key: significant(value) for key, value in mean._asdict().items()},
            "iqm": significant(middle.mean),
            "iqm_low": significant(middle.low),
            "iqm_high": significant(middle.high),
            "per_seed": [significant(v) for v in per_seed(array, values.statistic)],
        }
    return figures


def _budget(places: Sequence[Path]) -> dict[str, dict[str, float]]:
    budgets = [read_result(place / RESULT)["budget"] for place in places]
    found = {}
    for key in COSTS:
        costs = [budget[key] for budget in budgets]
        mean = significant(sum(costs) / len(costs))
        found[key] = {"mean": mean, "min": significant(min(costs)), "max": significant(max(costs))}
    return found


def read_result(path: Path) -> dict[str, Any]:
    """One of a benchmark's JSON files.

    Raises:
        DataError: it is missing or broken.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `mht seeds` again") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    return found


def _check_prompts(runs: Sequence[Evaluated]) -> None:
    if any(run.ids != runs[0].ids for run in runs):
        raise DataError("the variants were evaluated on different prompts: remove the folder")
