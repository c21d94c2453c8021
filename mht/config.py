"""Every section of params.yaml, typed: defaults, bounds and what must fit together.

`load_config` checks the whole file before anything is loaded or trained, and reports every mistake
at once with its path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mht.component import Section, build
from mht.errors import ConfigError
from mht.rewards import Reward
from mht.sources import Source

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class BaseConfig(Section):
    """What all stages share.

    Attributes:
        seed: seeds every random number; the same seed gives the same outputs.
        experiment: the MLflow experiment; changes no result.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        checkpoint_every_s: seconds between two checkpoints of a training stage, from which a killed
            run goes on; 0 writes one after every step; changes no result.
    """

    seed: NonNegative = 0
    experiment: str = "mht"
    device: str = "auto"
    checkpoint_every_s: Weight = 60.0


class ModelConfig(Section):
    """The policy's starting point.

    Attributes:
        name: a bundled model ("smollm2-135m-instruct"), a hub name ("gpt2") or a folder.
        revision: the hub revision to pin; ignored for the others.
        trust_remote_code: run code that comes with a hub model; off unless you ask.
        dtype: of the weights.
        num_layers_unfrozen: how many of the top layers train, or "all". The layers below are
            shared with the reference model and their activations are computed once per rollout.
    """

    name: str
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    num_layers_unfrozen: Positive | Literal["all"] = "all"


class SplitConfig(Section):
    """Shares of the texts, chosen by a hash of each text; the policy trains on what is left.

    Attributes:
        reward_model: for training the reward model, where it learns from the same source.
        validation: for choosing settings.
        test: for the numbers that are reported.
    """

    reward_model: Share = 0.4
    validation: Share = 0.05
    test: Share = 0.15

    @model_validator(mode="after")
    def _leave_something(self) -> SplitConfig:
        taken = self.reward_model + self.validation + self.test
        if taken >= 1:
            raise ValueError(f"the shares leave nothing to train the policy on (sum {taken:g})")
        return self


class DataConfig(Section):
    """What the policy learns from.

    Attributes:
        source: where the examples come from.
        labels: where the rated texts for the reward model come from.
        splits: how the texts are divided.
        prompt_words: for texts without a prompt of their own: how many of the first words are the
            prompt; the rest is the target.
        min_target_words: texts that leave a shorter target are dropped.
        max_prompt_tokens: a longer prompt is an error, unless ``long_prompts`` says otherwise.
        long_prompts: "error", "drop", or "truncate" (keeps the prompt's end).
        max_target_tokens: longer targets are cut and then carry no EOS.
    """

    source: Source
    labels: Source | None = None
    splits: SplitConfig = SplitConfig()
    prompt_words: Positive = 5
    min_target_words: Positive = 3
    max_prompt_tokens: Positive = 256
    long_prompts: Literal["error", "drop", "truncate"] = "error"
    max_target_tokens: Positive = 48


class RewardModelConfig(Section):
    """The classifier trained on rated texts, used as a reward and as a judge.

    Attributes:
        encoder: a bundled encoder ("all-MiniLM-L6-v2"), a hub name or a folder.
        epochs: passes over the rated texts.
        batch_size: texts per optimiser step.
        lr: peak learning rate; linear warm-up over the first tenth, then linear decay.
        num_layers_unfrozen: how many of the encoder's top layers train with the head, or "all".
        neutral: texts rated within +- this of 0 are left out of training and accuracy.
        max_tokens: longer texts are cut.
        holdout: share of the rated texts kept for its own accuracy and calibration.
    """

    encoder: str = "all-MiniLM-L6-v2"
    epochs: Positive = 2
    batch_size: Positive = 32
    lr: Rate = 5e-5
    num_layers_unfrozen: NonNegative | Literal["all"] = "all"
    neutral: Weight = 0.5
    max_tokens: Positive = 64
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.1


class OptimizerConfig(Section):
    """The optimiser, by name, with its options.

    Attributes:
        type: adamw, adamw_8bit, adam, sgd, rmsprop or adafactor.
        weight_decay: decoupled where the optimiser has it so.
        betas: of the Adam family.
        eps: of the Adam family.
        momentum: of sgd and rmsprop.
    """

    type: Literal["adamw", "adamw_8bit", "adam", "sgd", "rmsprop", "adafactor"] = "adamw"
    weight_decay: Weight = 0.0
    betas: Annotated[list[Decay], Field(min_length=2, max_length=2)] = Field(default=[0.9, 0.95])
    eps: Rate = 1e-8
    momentum: Share = 0.0


class SchedulerConfig(Section):
    """The learning rate over the optimiser steps.

    Attributes:
        type: constant, constant_with_warmup, linear, cosine or polynomial.
        warmup_steps: optimiser steps from 0 to the full rate.
    """

    type: Literal["constant", "constant_with_warmup", "linear", "cosine", "polynomial"] = "constant"
    warmup_steps: NonNegative = 0


class SFTConfig(Section):
    """Supervised fine-tuning before the cycles.

    Attributes:
        steps: optimiser steps; 0 passes the base model on.
        batch_size: examples per step.
        microbatch_size: examples in one forward and backward pass; gradients add up to those of the
            whole batch, in less memory. null takes all at once.
        lr: learning rate.
        max_grad_norm: gradients are clipped to this norm.
        eval_every: steps between two validation losses.
        eval_examples: how many validation examples, from the first on.
    """

    steps: NonNegative
    batch_size: Positive = 16
    microbatch_size: Positive | None = None
    lr: Rate = 1e-4
    max_grad_norm: Rate = 1.0
    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    eval_every: Positive = 20
    eval_examples: Positive = 128

    @property
    def plan(self) -> list[tuple[int, int]]:
        """SFT (and no PPO) steps between two validation losses."""
        whole, rest = divmod(self.steps, self.eval_every)
        return [(self.eval_every, 0)] * whole + [(rest, 0)] * bool(rest)

    @property
    def optimizer_steps(self) -> int:
        """Optimiser steps of the whole stage."""
        return self.steps

    def as_cycles(self) -> HybridConfig:
        """The same settings for the alternating loop: one cycle of SFT steps alone."""
        return HybridConfig(
            cycles=1,
            sft_steps_per_cycle=self.steps,
            ppo_steps_per_cycle=0,
            sft_batch_size=self.batch_size,
            microbatch_size=self.microbatch_size,
            lr=self.lr,
            max_grad_norm=self.max_grad_norm,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
        )


class KLControl(Section):
    """How the KL coefficient moves.

    Attributes:
        type: "fixed", or "adaptive" towards ``target`` (Ziegler et al. 2019, arXiv:1909.08593).
        target: nats per response.
        horizon: responses over which the controller reacts.
    """

    type: Literal["fixed", "adaptive"] = "adaptive"
    target: Rate = 6.0
    horizon: Positive = 10_000


class CurriculumConfig(Section):
    """How the mix of SFT and PPO changes over the cycles.

    Attributes:
        type: "none": every cycle alike. Otherwise the first cycle has ``sft_steps`` and
            ``ppo_steps``, the last one ``sft_steps_per_cycle`` and ``ppo_steps_per_cycle``, and
            those between follow a straight line, a half cosine, or change at once half-way (step).
        sft_steps: in the first cycle.
        ppo_steps: in the first cycle.
    """

    type: Literal["none", "linear", "cosine", "step"] = "none"
    sft_steps: NonNegative = 0
    ppo_steps: NonNegative = 0

    def steps(self, last: tuple[int, int], cycle: int, cycles: int) -> tuple[int, int]:
        """SFT and PPO steps of one of the cycles, counted from 0."""
        if self.type == "none":
            return last
        way = cycle / max(cycles - 1, 1)
        done = {
            "linear": way,
            "cosine": (1 - math.cos(math.pi * way)) / 2,
            "step": float(way >= 0.5),
        }[self.type]
        sft, ppo = (
            math.floor(a + (b - a) * done + 0.5)
            for a, b in zip((self.sft_steps, self.ppo_steps), last, strict=True)
        )
        return sft, ppo


class HybridConfig(Section):
    """The cycles of SFT and PPO, and the PPO itself.

    Attributes:
        cycles: rounds of SFT steps, then PPO steps.
        sft_steps_per_cycle: SFT steps in each; may be 0.
        ppo_steps_per_cycle: PPO steps in each; may be 0. A PPO step samples ``batch_size``
            responses and makes ``epochs * batch_size / minibatch_size`` optimiser steps.
        reward: what scores a response; not needed without PPO steps.
        batch_size: prompts per PPO step.
        curriculum: how the steps per cycle move towards the two numbers above.
        minibatch_size: responses per optimiser step; divides ``batch_size``.
        microbatch_size: rows in one forward and backward pass, SFT's too; gradients add up to those
            of the whole minibatch, in less memory. null takes all at once.
        sft_batch_size: examples per SFT step.
        epochs: passes over each rollout.
        response_tokens: a response stops here when no EOS came before.
        temperature: divides the logits, in sampling and in every logprob.
        lr: learning rate of PPO's optimiser steps.
        sft_lr: learning rate of the SFT steps; null means ``lr``.
        kl_coef: nats of KL to the reference cost this much reward each.
        kl_control: how ``kl_coef`` moves.
        kl_estimator: of the per-token penalty: k1 is the log ratio, k2 half its square, k3 the
            low-variance one (Schulman, joschu.net/blog/kl-approx.html).
        gamma: discount per token.
        lam: GAE's lambda (arXiv:1506.02438).
        clip_range: of the policy's ratio (arXiv:1707.06347).
        value_clip_range: of the value's change; null does not clip.
        vf_coef: weight of the value loss.
        ent_coef: weight of an entropy bonus.
        dual_clip: lower bound for negative advantages (arXiv:1912.09729); null is off.
        target_kl: stops a rollout's epochs when the approximate KL to the sampling policy passes
            it; null never stops.
        score_clip: scores are clipped to +- this; null does not clip.
        score_norm: divide scores by their running standard deviation.
        missing_eos_penalty: taken off the score of a response without EOS.
        ratio_tolerance: on the first minibatch of each rollout, the largest |ratio - 1| allowed.
        max_grad_norm: gradients are clipped to this norm.
        eval_every: cycles between two evaluations on validation prompts; 0 is never.
        eval_prompts: how many of them.
        save_every: cycles between two saved checkpoints; 0 keeps only the final model.
    """

    cycles: NonNegative
    sft_steps_per_cycle: NonNegative
    ppo_steps_per_cycle: NonNegative
    curriculum: CurriculumConfig = CurriculumConfig()
    reward: Reward | None = None
    batch_size: Positive = 32
    minibatch_size: Positive = 16
    microbatch_size: Positive | None = None
    sft_batch_size: Positive = 16
    epochs: Positive = 4
    response_tokens: Positive = 24
    temperature: Rate = 1.0
    lr: Rate = 1e-4
    sft_lr: Rate | None = None
    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    kl_coef: Weight = 0.05
    kl_control: KLControl = KLControl()
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    gamma: Share = 1.0
    lam: Share = 0.95
    clip_range: Rate = 0.2
    value_clip_range: Rate | None = 0.2
    vf_coef: Weight = 0.1
    ent_coef: Weight = 0.0
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    target_kl: Rate | None = None
    score_clip: Rate | None = None
    score_norm: bool = False
    missing_eos_penalty: Weight = 0.0
    ratio_tolerance: Rate = 1e-3
    max_grad_norm: Rate = 1.0
    eval_every: NonNegative = 1
    eval_prompts: Positive = 64
    save_every: NonNegative = 0

    @model_validator(mode="after")
    def _fits_together(self) -> HybridConfig:
        if self.batch_size % self.minibatch_size:
            raise ValueError(
                f"minibatch_size {self.minibatch_size} does not divide batch_size "
                f"{self.batch_size}: set one that does"
            )
        if self.reward is None and any(ppo for _, ppo in self.plan):
            raise ValueError("PPO steps need a reward: set reward, or ppo_steps_per_cycle to 0")
        return self

    @property
    def updates_per_ppo_step(self) -> int:
        """Optimiser steps in one PPO step."""
        return self.epochs * self.batch_size // self.minibatch_size

    @property
    def plan(self) -> list[tuple[int, int]]:
        """SFT and PPO steps of each cycle."""
        ends = self.sft_steps_per_cycle, self.ppo_steps_per_cycle
        return [self.curriculum.steps(ends, i, self.cycles) for i in range(self.cycles)]

    @property
    def optimizer_steps(self) -> int:
        """Optimiser steps of the whole schedule, SFT and PPO."""
        return sum(sft + ppo * self.updates_per_ppo_step for sft, ppo in self.plan)


class BaselinesConfig(Section):
    """What the hybrid is compared with; their settings stay still while you change ``ppo``."""

    sft_only: HybridConfig
    ppo_only: HybridConfig


class DecodingConfig(Section):
    """How responses are drawn for evaluation.

    Attributes:
        temperature: 0 is greedy.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest set with this probability.
        response_tokens: length limit.
    """

    temperature: Weight = 1.0
    top_k: NonNegative = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    response_tokens: Positive = 24


class EvaluateConfig(Section):
    """Evaluation on unseen prompts.

    Attributes:
        prompts: how many test prompts, from the first on.
        batch_size: prompts generated and scored at once.
        decoding: how responses are drawn.
        judge: the component behind ``p_positive``.
        bertscore_model: encoder for BERTScore and its layer; null skips it.
        bertscore_layer: whose hidden states are compared.
        resamples: of the bootstrap.
    """

    prompts: Positive = 256
    batch_size: Positive = 64
    decoding: DecodingConfig = DecodingConfig()
    judge: Reward
    bertscore_model: str | None = "data/raw/encoder"
    bertscore_layer: Positive = 5
    resamples: Positive = 1000


class BenchmarkConfig(Section):
    """The comparison of the variants.

    Attributes:
        metrics: the table's columns, in order.
        samples: rows of the side-by-side table.
        baseline: the variant that differences are taken against.
        resamples: of the paired bootstrap for differences.
    """

    metrics: list[str]
    samples: Positive = 8
    baseline: Literal["base", "sft_only", "ppo_only"] = "sft_only"
    resamples: Positive = 2000


class Config(Section):
    """The whole of params.yaml."""

    base: BaseConfig = BaseConfig()
    model: ModelConfig
    data: DataConfig
    reward_model: RewardModelConfig = RewardModelConfig()
    sft: SFTConfig
    ppo: HybridConfig
    baselines: BaselinesConfig
    evaluate: EvaluateConfig
    benchmark: BenchmarkConfig

    @property
    def optimizer_steps(self) -> dict[str, int]:
        """Optimiser steps of each variant, those of the SFT that it starts from included."""
        sft = self.sft.steps
        return {
            "base": 0,
            "sft_only": sft + self.baselines.sft_only.optimizer_steps,
            "ppo_only": self.baselines.ppo_only.optimizer_steps,
            "hybrid": sft + self.ppo.optimizer_steps,
        }


def read_yaml(path: str | Path) -> Any:
    """The plain data of a YAML 1.2 file.

    Raises:
        ConfigError: no such file, not UTF-8, or not YAML; with the line.
    """
    try:
        return YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(["no such file"], str(path)) from None
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not UTF-8: save it as UTF-8"
        raise ConfigError([problem], str(path)) from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError([f"{where}{what}"], str(path)) from None


def load_config(path: str | Path = "params.yaml") -> Config:
    """Read and check params.yaml.

    Raises:
        ConfigError: with every mistake and its path.
    """
    data = read_yaml(path)
    if not isinstance(data, Mapping):
        raise ConfigError(["the file must hold a mapping of sections"], str(path))
    return build(Config, data, source=str(path))
