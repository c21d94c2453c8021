"""Measure one variant on unseen prompts: ``python -m stages.evaluate hybrid``."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mht.checks.watched import check_watched, files_of_evaluation
from mht.core.errors import UserError
from mht.core.seeds import place
from mht.data.examples.example import read_examples
from mht.evaluation.evaluator import evaluate_policy
from mht.evaluation.over_seeds import summarise_seeds
from mht.evaluation.summary import read_samples, summarise, write_json, write_samples
from mht.fresh.base import model_folder
from mht.generation.sampling.rollout import Responder
from mht.models.loading import load_causal_lm, load_tokenizer, resolve_device
from mht.models.precision import resolve_dtype
from mht.pipeline.seeds import over_seeds
from mht.pipeline.stage import run_stage

if TYPE_CHECKING:
    from mht.config import Config, Variant
    from mht.tracking import Run

SAMPLES, METRICS = "samples.jsonl", "metrics.json"
SHOWN = ("p_positive", "vader", "response_length", "kl_nats", "perplexity_human")


def main(config: Config, run: Run) -> None:
    """Write the variant's samples and its metrics with their intervals."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    variant = config.variants.get(name)
    if variant is None:
        names = ", ".join(config.variants)
        raise UserError(f"name the variant, one of {names}; got {name!r}")
    check_watched(files_of_evaluation(config), run.deps)
    folder, metrics = f"reports/evaluate/{name}", f"metrics/evaluate/{name}.json"
    own = {METRICS: metrics} if len(config.seeds) == 1 else {}
    over_seeds(config, run, {"samples": folder, **own}, partial(evaluate, variant, config))
    if not own:
        write_json(metrics, _over_seeds(folder, config))
    summary = json.loads(Path(metrics).read_text(encoding="utf-8"))
    run.summary({metric: value["mean"] for metric, value in summary.items()})
    run.artifact(folder)
    for metric in SHOWN:
        if metric in summary:
            print("{0:>18} {mean:8.3f}  [{low:.3f}, {high:.3f}]".format(metric, **summary[metric]))


def evaluate(variant: Variant, experiment: Config, config: Config, run: Run, folder: Path) -> None:
    """Measure the model of one training seed; write its samples and its metrics.

    Args:
        variant: what is measured.
        experiment: the settings, of all seeds.
        config: the same of one seed.
        run: of that seed.
        folder: for the results, empty.
    """
    settings, seed = config.evaluate, config.base.seed
    device = resolve_device(config.base.device)
    where = {"dtype": resolve_dtype(config.model.dtype, device), "device": device}
    own = model_folder(variant.name, experiment, seed)
    policy = load_causal_lm(own, **where)
    is_base = variant.name == "base"
    base = policy if is_base else load_causal_lm(model_folder("base", experiment, seed), **where)
    start = None
    if settings.kl_to == variant.start and variant.has_ppo:
        start = load_causal_lm(model_folder(variant.start, experiment, seed), **where)
    for model in filter(None, (policy, base, start)):
        model.requires_grad_(False)
    examples = read_examples(f"data/prepared/{settings.split}.parquet")[: settings.prompts]
    samples, columns = evaluate_policy(
        policy,
        base,
        Responder(policy, load_tokenizer(own), settings.decoding.model_dump()),
        examples,
        judge=settings.judge,
        reward=config.ppo.reward,
        batch_size=settings.batch_size,
        seed=seed,
        bertscore_model=settings.bertscore_model,
        bertscore_layer=settings.bertscore_layer,
        start=start,
        judges=settings.judges,
        rounds=settings.responses_per_prompt,
    )
    rounds = settings.responses_per_prompt
    ids = [example.id for example in examples] * rounds
    summary = summarise(columns, samples, rounds=rounds, resamples=settings.resamples, seed=seed)
    write_samples(folder / "samples" / SAMPLES, ids, samples, columns)
    write_json(folder / METRICS, summary)
    run.summary({metric: value["mean"] for metric, value in summary.items()})


def _over_seeds(folder: str, config: Config) -> dict[str, dict[str, float]]:
    places = [place(folder, config.seeds, seed) for seed in config.seeds]
    runs = [read_samples(own / SAMPLES) for own in places]
    return summarise_seeds(runs, resamples=config.evaluate.resamples, seed=config.base.seed)


if __name__ == "__main__":
    run_stage(main)
