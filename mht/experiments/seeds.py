"""The benchmark over training seeds: every variant trained and measured anew for each, without DVC.

The work of the stages fetch, prepare, sft, ppo, baseline and evaluate in one process, for tasks
small enough to repeat. Rewards that need a model trained by the pipeline find it where the pipeline
leaves it (``dvc repro reward_model`` first). What is done is kept: a run that was killed goes on
with the first variant that has no result yet. A result belongs to its settings and code, so a
changed variant alone runs again, and one that equals another takes that one's result.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mht.assets.fetch import fetch_policy
from mht.config import Config
from mht.config.fresh import FreshModel
from mht.core.progress import track
from mht.data.prepare.prepare import prepare
from mht.data.sources.fetch import fetch_rows, fetched_texts
from mht.experiments.seed_run import SeedRun
from mht.experiments.variants import Variant, identity, training, variants_of
from mht.reports.conclusion import OFF
from mht.reports.guard import Bounds
from mht.reports.records import Entry
from mht.reports.seeds_folder import REPORT_FILES, RESULT, SAMPLES, final_figures, report_seeds
from mht.tracking.names import flat_metrics
from mht.tracking.seeds import NullSeeds, SeedsRun


def run_seeds(
    config: Config,
    folder: str | Path,
    *,
    seeds: Sequence[int],
    tracking: SeedsRun | None = None,
    done: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Train and measure every variant for every seed; write tables, curves and figures.

    Args:
        config: the experiment; ``base.seed``, and the seed of a fresh model, are set to each seed.
        folder: gets ``seed_<n>/<variant>/`` with results, and the files of
            `REPORT_FILES`. Results of folders beside it count where their identity fits.
        seeds: the training seeds.
        tracking: gets a run for each variant and seed; None tracks nothing.
        done: called after each variant that was trained.

    Returns:
        What ``summary.json`` holds.

    Raises:
        UserError: a setting, the data or a model is wrong.
    """
    folder, log = Path(folder), tracking or NullSeeds()
    variants = variants_of(config)
    missing = {seed: _missing(config, folder, seed) for seed in seeds}
    _prepare(with_seed(config, config.base.seed), folder)
    with track(range(0), folder.name, total=sum(map(len, missing.values()))) as bar:
        for seed in seeds:
            own = with_seed(config, seed)
            for variant in _run_seed(own, folder, missing[seed], log):
                _log_result(variant, own, folder, log)
                bar.advance()
                if done:
                    done()
            _share(own, folder)
            for variant, _, _ in _of_seed(own, folder):
                _log_result(variant, own, folder, log)
    summary = _report(config, folder, seeds, variants)
    files = [folder / name for name in REPORT_FILES if (folder / name).exists()]
    log.summary(flat_metrics(summary["metrics"], "benchmark"), files)
    return summary


def _report(
    config: Config, folder: Path, seeds: Sequence[int], variants: Sequence[Variant]
) -> dict[str, Any]:
    wanted, names = config.benchmark, [variant.name for variant in variants]
    others = [name for name in names if name != wanted.subject]
    return report_seeds(
        folder,
        [
            Entry(v.name, "sft" if v.sft else "base", v.optimizer_steps, v.loop is not None)
            for v in variants
        ],
        seeds=seeds,
        metrics=wanted.metrics,
        samples=wanted.samples,
        split=config.evaluate.split,
        subject=wanted.subject,
        baseline=wanted.baseline if wanted.baseline in others else others[0],
        guard=Bounds(**wanted.guard.model_dump()) if wanted.guard else OFF,
        reach=wanted.reach.model_dump(),
        resamples=wanted.resamples,
        seed=config.base.seed,
        settings={
            v.name: {"recipe": v.recipe, "changes": v.changes, "from_base": v.sft is None}
            for v in variants
        },
    )


def _prepare(config: Config, folder: Path) -> None:
    """Data and a base model for all seeds."""
    raw, base = folder / "data/raw", folder / "data/base"
    fetch_rows(config.data, raw)
    fetch_policy(config.model, base, fetched_texts(raw))
    prepare(
        config, raw=raw, model=base, out=folder / "data/prepared",
        metrics=folder / "data/prepare.json", plots=folder / "data/plots",
    )  # fmt: skip


def _of_seed(config: Config, folder: Path) -> list[tuple[Variant, Path, dict[str, str]]]:
    """Each variant with the configuration's seed, its folder, and what its result rests on."""
    seed = config.base.seed
    variants = [replace(v, config=with_seed(v.config, seed)) for v in variants_of(config)]
    place = folder / f"seed_{seed}"
    return [(variant, place / variant.name, identity(variant, config)) for variant in variants]


def missing_results(config: Config, folder: Path, seeds: Sequence[int]) -> int:
    """How many variants have to be trained until all seeds are done."""
    return sum(len(_missing(config, folder, seed)) for seed in seeds)


def _missing(config: Config, folder: Path, seed: int) -> list[Variant]:
    """The variants of a seed that have no result, none like it, and no like variant before."""
    results = _results(folder.parent)
    found = []
    for variant, place, wanted in _of_seed(with_seed(config, seed), folder):
        if not is_done(place, wanted) and _key(wanted) not in results:
            found.append(variant)
            results[_key(wanted)] = place
    return found


def _run_seed(
    config: Config, folder: Path, missing: Sequence[Variant], log: SeedsRun
) -> Iterator[Variant]:
    """Train and measure the variants that are missing; their models are removed at the end."""
    if not missing:
        return
    began, seed = time.perf_counter(), config.base.seed
    place, base = folder / f"seed_{seed}", folder / "data/base"
    if isinstance(config.model.name, FreshModel):
        base = place / "models/base"
        fetch_policy(config.model, base, fetched_texts(folder / "data/raw"))
    run = SeedRun(config, place, base, folder / "data/prepared")
    for variant in missing:
        log.begin(variant.name, seed, identity(variant, config))
        run.run(variant)
        yield variant
    shutil.rmtree(place / "models", ignore_errors=True)
    names = ", ".join(variant.name for variant in missing)
    print(f"{place.name}: {names} in {time.perf_counter() - began:.0f} s", flush=True)


def _share(config: Config, folder: Path) -> None:
    """Give the variants without a result that of one with the same identity."""
    results = _results(folder.parent)
    for _, place, wanted in _of_seed(config, folder):
        if not is_done(place, wanted):
            place.mkdir(parents=True, exist_ok=True)
            for name in (SAMPLES, RESULT):  # the result last: it says that all is there
                shutil.copyfile(results[_key(wanted)] / name, place / name)


def _log_result(variant: Variant, config: Config, folder: Path, log: SeedsRun) -> None:
    place = folder / f"seed_{config.base.seed}" / variant.name
    log.finish(
        variant.name,
        config.base.seed,
        identity(variant, config),
        params={"recipe": variant.recipe, **training(variant)},
        result=json.loads((place / RESULT).read_text(encoding="utf-8")),
        metrics=final_figures(place),
        samples=place / SAMPLES,
    )


def _results(above: Path) -> dict[str, Path]:
    """Identity to folder, of every result in the benchmarks below a folder."""
    found = {}
    for file in sorted(above.glob(f"*/seed_*/*/{RESULT}")):
        known = _identity_in(file.parent)
        if known and (file.parent / SAMPLES).exists():
            found[_key(known)] = file.parent
    return found


def _key(rests_on: dict[str, str]) -> str:
    return json.dumps(rests_on, sort_keys=True)


def with_seed(config: Config, seed: int) -> Config:
    """The settings with another training seed, that of a fresh model's weights included.

    Labels from a source of their own are left out: only the reward model would read them.
    """
    model, data = config.model, config.data
    if isinstance(model.name, FreshModel):
        model = model.model_copy(update={"name": model.name.model_copy(update={"seed": seed})})
    base = config.base.model_copy(update={"seed": seed})
    if data.labels != data.source:
        data = data.model_copy(update={"labels": None})
    return config.model_copy(update={"base": base, "model": model, "data": data})


def is_done(folder: Path, wanted: dict[str, str]) -> bool:
    """Whether a variant's folder has the result of this identity."""
    return _identity_in(folder) == wanted


def _identity_in(folder: Path) -> dict[str, str] | None:
    try:
        found = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    identity: dict[str, str] | None = found.get("identity")
    return identity
