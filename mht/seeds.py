"""The benchmark over training seeds: every variant trained and measured anew for each, without DVC.

The work of the stages fetch, prepare, sft, ppo, baseline and evaluate in one process, for tasks
small enough to repeat. Rewards that need a model trained by the pipeline find it where the pipeline
leaves it (``dvc repro reward_model`` first). What is done is kept: a run that was killed goes on
with the first variant that has no result yet, and one with other settings or code starts over.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mht.config import Config, HybridConfig
from mht.config.policy import ScratchConfig
from mht.data.examples import Example, read_examples
from mht.data.fetch import fetch_rows, fetched_texts
from mht.data.prepare import prepare
from mht.evaluation.over_seeds_report import RESULT, SAMPLES, write_report
from mht.evaluation.summary import write_json, write_samples
from mht.evaluator import evaluate_policy
from mht.models.assets import fetch_policy
from mht.models.loading import load_causal_lm, load_tokenizer, resolve_device
from mht.models.precision import resolve_dtype
from mht.rewards import Reward
from mht.rollout import Responder
from mht.trainers.hybrid import HybridTrainer, Stats
from mht.trainers.practice import section_named
from mht.trainers.schedule import Plan
from mht.validation import Validation

VARIANTS = ("base", "sft_only", "ppo_only", "hybrid")
NO_RESULT = ("benchmark", "base.experiment", "base.checkpoint_every_s")  # they change none


@dataclass
class Meter:
    """What a variant has cost so far, and its learning curve.

    Attributes:
        optimizer_steps: SFT and PPO.
        sampled_tokens: of all rollouts.
        seconds: of the training steps; looks at validation prompts are not counted.
        cpu_seconds: of this process while it trained, looks included: what else the machine did
            has less part in it.
        curve: a row for each look at the validation prompts.
    """

    optimizer_steps: int = 0
    sampled_tokens: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)

    @property
    def budget(self) -> dict[str, float]:
        """What it has cost."""
        return {k: v for k, v in asdict(self).items() if k != "curve"}

    def count(self, stats: Mapping[str, float], batch_size: int) -> None:
        """Take in the figures of one step, or of a look at the validation prompts."""
        self.optimizer_steps += ("sft/loss" in stats) + int(stats.get("ppo/optim/steps", 0))
        length = stats.get("ppo/response/length_tokens", 0.0)
        self.sampled_tokens += round(length * batch_size)
        self.seconds += stats.get("sft/time/step_s", 0.0) + stats.get("ppo/time/step_s", 0.0)
        looked = {k.partition("/")[2]: v for k, v in stats.items() if k.startswith("validation/")}
        if looked:
            self.curve.append(self.budget | looked)


def run_seeds(config: Config, folder: str | Path, *, seeds: Sequence[int]) -> dict[str, Any]:
    """Train and measure every variant for every seed; write the tables.

    Args:
        config: the experiment; ``base.seed``, and the seed of a fresh model, are set to each seed.
        folder: gets ``seed_<n>/<variant>/`` with results, ``summary.json`` and ``table.md``.
        seeds: the training seeds.

    Returns:
        What ``summary.json`` holds.

    Raises:
        UserError: a setting, the data or a model is wrong.
    """
    folder = Path(folder)
    raw, prepared = folder / "data/raw", folder / "data/prepared"
    config = with_seed(config, config.base.seed)
    fetch_rows(config.data, raw)
    shared = folder / "data/base"
    fetch_policy(config.model, shared, fetched_texts(raw))
    prepare(
        config, raw=raw, model=shared, out=prepared,
        metrics=folder / "data/prepare.json", plots=folder / "data/plots",
    )  # fmt: skip
    for seed in seeds:
        own = with_seed(config, seed)
        place = folder / f"seed_{seed}"
        missing = [name for name in VARIANTS if not is_done(place / name, own)]
        if not missing:
            continue
        base = shared
        if isinstance(own.model.name, ScratchConfig):
            base = place / "models/base"
            fetch_policy(own.model, base, fetched_texts(raw))
        SeedRun(own, place, base, prepared).run(missing)
    return write_report(
        folder,
        metrics=config.benchmark.metrics,
        seeds=seeds,
        variants=VARIANTS,
        resamples=config.benchmark.resamples,
        seed=config.base.seed,
    )


def with_seed(config: Config, seed: int) -> Config:
    """The settings with another training seed, that of a fresh model's weights included.

    Labels from a source of their own are left out: only the reward model would read them.
    """
    model, data = config.model, config.data
    if isinstance(model.name, ScratchConfig):
        model = model.model_copy(update={"name": model.name.model_copy(update={"seed": seed})})
    base = config.base.model_copy(update={"seed": seed})
    if data.labels != data.source:
        data = data.model_copy(update={"labels": None})
    return config.model_copy(update={"base": base, "model": model, "data": data})


class SeedRun:
    """All variants of one seed.

    Args:
        config: with that seed.
        folder: for the results.
        base: the folder of the starting model.
        prepared: the folder of the prepared splits.
    """

    def __init__(self, config: Config, folder: Path, base: Path, prepared: Path):
        self.config, self.folder, self.base = config, folder, base
        self.models = folder / "models"
        self.device = resolve_device(config.base.device)
        self.train, self.validation, self.test = (
            read_examples(prepared / f"{part}.parquet") for part in ("train", "validation", "test")
        )

    def run(self, variants: Sequence[str]) -> None:
        """Train and measure the variants; the models are removed at the end."""
        began = time.perf_counter()
        sft = Meter()
        if {"sft_only", "hybrid"} & set(variants):
            plan = self.config.sft.plan
            self._train(self.base, "sft", self.config.sft.as_cycles(), plan, sft)
        for name in variants:
            self._variant(name, sft)
        shutil.rmtree(self.models, ignore_errors=True)
        seconds = time.perf_counter() - began
        print(f"{self.folder.name}: {', '.join(variants)} in {seconds:.0f} s", flush=True)

    def _variant(self, name: str, sft: Meter) -> None:
        meter, model = Meter(), self.base
        if name != "base":
            baselines = self.config.baselines
            settings = self.config.ppo if name == "hybrid" else getattr(baselines, name)
            start = self.base if name == "ppo_only" else self.models / "sft"
            meter = Meter() if name == "ppo_only" else replace(sft, curve=[*sft.curve])
            model = self._train(start, name, settings, settings.plan, meter)
        self._measure(name, model)
        write_json(
            self.folder / name / RESULT,
            {"budget": meter.budget, "curve": meter.curve, "identity": identity(self.config)},
        )

    def _train(
        self, start: Path, name: str, settings: HybridConfig, plan: Plan, meter: Meter
    ) -> Path:
        """Train from a folder into another, which is returned."""
        config = self.config
        with section_named("ppo" if name == "hybrid" else f"baselines.{name}"):
            trainer = HybridTrainer(
                start,
                train_data=self.train,
                config=settings,
                num_layers_unfrozen=config.model.num_layers_unfrozen,
                lora=config.model.lora,
                context_window=config.model.context_window,
                seed=config.base.seed,
                device=config.base.device,
                dtype=config.model.dtype,
                gradient_checkpointing=config.model.gradient_checkpointing,
            )
        look = self._validation(trainer, settings.eval_prompts)

        def after_cycle(cycle: int) -> Stats:
            every = settings.eval_every
            wanted = every and (cycle % every == 0 or cycle == len(plan))
            return look.figures() if wanted else {}

        began = time.process_time()
        trainer.train(plan, lambda stats, _: meter.count(stats, settings.batch_size), after_cycle)
        meter.cpu_seconds += time.process_time() - began
        trainer.save(self.models / name)
        return self.models / name

    def _validation(self, trainer: HybridTrainer, prompts: int) -> Validation:
        """Every variant is looked at with the hybrid's reward."""
        return Validation(
            trainer.policy,
            trainer.responder,
            self.validation[:prompts],
            self.config.ppo.reward,
            seed=self.config.base.seed,
            batch_size=64,
        )

    def _measure(self, name: str, folder: Path) -> None:
        """Write the variant's samples with all their numbers."""
        settings = self.config.evaluate
        examples: list[Example] = self.test[: settings.prompts]
        dtype = resolve_dtype(self.config.model.dtype, self.device)
        policy, base = (
            load_causal_lm(path, dtype=dtype, device=self.device).requires_grad_(False)
            for path in (folder, self.base)
        )
        reward = self.config.ppo.reward
        samples, columns = evaluate_policy(
            policy,
            base,
            Responder(policy, load_tokenizer(folder), settings.decoding.model_dump()),
            examples,
            judge=settings.judge,
            reward=reward if isinstance(reward, Reward) else None,
            batch_size=settings.batch_size,
            seed=self.config.base.seed,
            bertscore_model=settings.bertscore_model,
            bertscore_layer=settings.bertscore_layer,
        )
        ids = [example.id for example in examples]
        write_samples(self.folder / name / SAMPLES, ids, samples, columns)


def is_done(folder: Path, config: Config) -> bool:
    """Whether a variant's folder has the result of these settings and this code."""
    try:
        found = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return found.get("identity") == identity(config)


def identity(config: Config) -> dict[str, str]:
    """What a result depends on: the sha256 of the settings that matter, and of the library."""
    settings = config.model_dump(mode="json")
    for path in NO_RESULT:
        *above, key = path.split(".")
        section = settings
        for name in above:
            section = section[name]
        del section[key]
    package = Path(__file__).parent
    code = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        code.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    text = json.dumps(settings, sort_keys=True)
    return {"settings": hashlib.sha256(text.encode()).hexdigest(), "code": code.hexdigest()}
