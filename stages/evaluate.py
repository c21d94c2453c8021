"""Measure one variant on unseen prompts: ``python -m stages.evaluate hybrid``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mht.checks.watched import check_watched, files_of_evaluation
from mht.core.errors import UserError
from mht.data.examples.example import read_examples
from mht.evaluation.evaluator import evaluate_policy
from mht.evaluation.summary import summarise, write_json, write_samples
from mht.generation.sampling.rollout import Responder
from mht.models.loading import load_causal_lm, load_tokenizer, resolve_device
from mht.models.precision import resolve_dtype
from mht.pipeline.stage import run_stage

if TYPE_CHECKING:
    from mht.config import Config
    from mht.tracking import Run


def main(config: Config, run: Run) -> None:
    """Write the variant's samples and its metrics with their intervals."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    variant = config.variants.get(name)
    if variant is None:
        names = ", ".join(config.variants)
        raise UserError(f"name the variant, one of {names}; got {name!r}")
    check_watched(files_of_evaluation(config), run.deps)
    settings, seed = config.evaluate, config.base.seed
    device = resolve_device(config.base.device)
    where = {"dtype": resolve_dtype(config.model.dtype, device), "device": device}
    policy = load_causal_lm(f"models/{name}", **where)
    base = policy if name == "base" else load_causal_lm("models/base", **where)
    start = None
    if settings.kl_to == variant.start and variant.has_ppo:
        start = load_causal_lm(f"models/{settings.kl_to}", **where)
    for model in filter(None, (policy, base, start)):
        model.requires_grad_(False)
    examples = read_examples(f"data/prepared/{settings.split}.parquet")[: settings.prompts]
    samples, columns = evaluate_policy(
        policy,
        base,
        Responder(policy, load_tokenizer(f"models/{name}"), settings.decoding.model_dump()),
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
    write_samples(f"reports/evaluate/{name}/samples.jsonl", ids, samples, columns)
    write_json(f"metrics/evaluate/{name}.json", summary)
    run.summary({metric: value["mean"] for metric, value in summary.items()})
    run.artifact(f"reports/evaluate/{name}")
    for metric in ("p_positive", "vader", "response_length", "kl_nats", "perplexity_human"):
        if metric in summary:
            print("{0:>18} {mean:8.3f}  [{low:.3f}, {high:.3f}]".format(metric, **summary[metric]))


if __name__ == "__main__":
    run_stage(main)
