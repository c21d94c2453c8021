"""One training seed of a benchmark over seeds: each variant trained, measured and metered."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mht.config import Config, HybridConfig, ModelConfig, SFTConfig
from mht.config.cycles import Plan
from mht.data.examples.example import Example, read_examples
from mht.evaluation.evaluator import evaluate_policy
from mht.evaluation.summary import write_json, write_samples
from mht.experiments.variants import Variant, identity
from mht.generation.sampling.rollout import Responder
from mht.models.loading import load_causal_lm, load_tokenizer, resolve_device
from mht.models.precision import resolve_dtype
from mht.reports.seeds_folder import RESULT, SAMPLES
from mht.rewards import Reward
from mht.training.from_config import experiment_look, make_trainer
from mht.training.hybrid import HybridTrainer, Stats

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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


class SeedRun:
    """All variants of one seed.

    Args:
        config: the experiment with that seed; its reward and evaluation measure every variant.
        folder: for the results.
        base: the folder of the starting model.
        prepared: the folder of the prepared splits.
    """

    def __init__(self, config: Config, folder: Path, base: Path, prepared: Path):
        self.config, self.folder, self.base = config, folder, base
        self.models = folder / "models"
        self.device = resolve_device(config.base.device)
        self.train, self.validation, self.measured = (
            read_examples(prepared / f"{part}.parquet")
            for part in ("train", "validation", config.evaluate.split)
        )
        self._sft: dict[str, Meter] = {}

    def run(self, variant: Variant) -> None:
        """Train and measure a variant with the seed set; its result is written last."""
        meter, model, settings = Meter(), self.base, variant.config.model
        if variant.sft:
            model, meter = self._after_sft(variant.sft, settings)
        before = model if variant.sft else None
        if variant.loop:
            place = self.models / variant.name
            trainer = self._trainer(model, variant.loop, variant.section, settings, variant.sft)
            model = self._train(trainer, place, variant.plan, meter)
        self._measure(variant, model, before)
        write_json(
            self.folder / variant.name / RESULT,
            {
                "budget": meter.budget,
                "curve": meter.curve,
                "identity": identity(variant, self.config),
            },
        )

    def _after_sft(self, stage: SFTConfig, model: ModelConfig) -> tuple[Path, Meter]:
        """The SFT stage's model, trained once for all variants that start from it, and its cost."""
        key = json.dumps([stage.model_dump(mode="json"), model.model_dump(mode="json")])
        place = self.models / f"sft-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        if place.name not in self._sft:
            meter = Meter()
            trainer = self._trainer(self.base, stage.as_cycles(), "sft", model)
            self._train(trainer, place, stage.plan, meter)
            self._sft[place.name] = meter
        meter = self._sft[place.name]
        return place, replace(meter, curve=[*meter.curve])

    def _trainer(
        self,
        start: Path,
        settings: HybridConfig,
        section: str,
        model: ModelConfig,
        after: SFTConfig | None = None,
    ) -> HybridTrainer:
        return make_trainer(
            start,
            self.train,
            settings,
            section=section,
            base=self.config.base,
            model=model,
            after=after,
        )

    def _train(self, trainer: HybridTrainer, place: Path, plan: Plan, meter: Meter) -> Path:
        """Train into a folder, which is returned."""
        settings = trainer.config
        look = experiment_look(trainer, self.config, self.validation)

        def after_cycle(cycle: int) -> Stats:
            every = settings.eval_every
            wanted = every and (cycle % every == 0 or cycle == len(plan))
            return look.figures() if wanted else {}

        began = time.process_time()
        trainer.train(plan, lambda stats, _: meter.count(stats, settings.batch_size), after_cycle)
        meter.cpu_seconds += time.process_time() - began
        trainer.save(place)
        return place

    def _load(self, folder: Path) -> PreTrainedModel:
        dtype = resolve_dtype(self.config.model.dtype, self.device)
        return load_causal_lm(folder, dtype=dtype, device=self.device).requires_grad_(False)

    def _measure(self, variant: Variant, folder: Path, sft: Path | None) -> None:
        """Write the variant's samples with all their numbers.

        Args:
            variant: what was trained.
            folder: its model.
            sft: the model that its cycles began with, where an SFT stage made it.
        """
        settings = self.config.evaluate
        examples: list[Example] = self.measured[: settings.prompts]
        policy, base = self._load(folder), self._load(self.base)
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
            start=self._load(sft) if settings.kl_to and sft else None,
            judges=settings.judges,
            rounds=settings.responses_per_prompt,
        )
        ids = [example.id for example in examples] * settings.responses_per_prompt
        write_samples(self.folder / variant.name / SAMPLES, ids, samples, columns)
