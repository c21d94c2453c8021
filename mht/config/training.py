"""The section of the cycles of SFT and PPO, and of the PPO itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mht.config.cycles import CyclesConfig, steps_of
from mht.config.memory import MemoryConfig
from mht.config.optim import OptimizerConfig, SchedulerConfig
from mht.config.policy import Name, ReferenceConfig
from mht.core.bounds import NonNegative, Positive, Rate, Share, Weight
from mht.core.component import Chosen, Section, refuse

Reward = Annotated[Any, Chosen("reward")]
Advantage = Annotated[Any, Chosen("advantage", default="gae")]
Critic = Annotated[Any, Chosen("critic", default="linear")]
PolicyLoss = Annotated[Any, Chosen("policy_loss", default="clip")]
Aggregation = Annotated[Any, Chosen("aggregation", default="token_mean")]
Head = Annotated[Any, Chosen("head")]
TRUNCATED = (
    "PPO samples from the distribution that it scores, the whole one; truncated sampling would "
    "need renormalised logprobs. Set ppo.temperature instead, or truncate where nothing trains: in "
    "evaluate.decoding"
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


class HybridConfig(CyclesConfig):
    """The cycles of SFT and PPO, and the PPO itself.

    Attributes:
        reward: what scores a response; not needed without PPO steps.
        batch_size: responses per PPO step.
        responses_per_prompt: responses to each prompt; divides ``batch_size``. From 2 on, each
            score counts less the mean of the same prompt's other responses (RLOO,
            arXiv:2402.14740). This removes the noise that comes from easy and hard prompts.
        minibatch_size: responses per optimiser step; divides ``batch_size``.
        microbatch_size: rows in one forward and backward pass, SFT's too. Gradients add up to those
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
        references: further frozen models by name, each with its own penalty, which all add up.
        value_head: what estimates the value of a state.
        advantage: how advantages follow from rewards and values.
        policy_loss: what the updates minimise at each token.
        aggregation: how the losses of a minibatch's tokens become one number.
        heads: further heads by name, which learn beside PPO; each adds its loss to the updates'.
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
        ratio_tolerance: bound of |ratio - 1| on the first minibatch of each rollout: of its maximum
            in float32, of its mean in 16 bits. The default, null, is 1e-3 in float32, 0.1 in
            bfloat16 and 0.015 in float16.
        max_grad_norm: gradients are clipped to this norm.
        memory: remembers the attempts and chooses what to practise.
        eval_every: cycles between two evaluations on validation prompts; 0 is never.
        eval_prompts: how many of them.
        save_every: cycles between two saved checkpoints; 0 keeps only the final model.
    """

    not_here: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"), TRUNCATED
        ),
        "curriculum": "set mix, such as {type: linear, first: {sft: 12, ppo: 0}}",
    }

    reward: Reward | None = None
    batch_size: Positive = 32
    responses_per_prompt: Positive = 1
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
    references: dict[Name, ReferenceConfig] = Field(default_factory=dict)
    value_head: Critic = Field({"type": "linear"}, validate_default=True)
    advantage: Advantage = Field({"type": "gae"}, validate_default=True)
    policy_loss: PolicyLoss = Field({"type": "clip"}, validate_default=True)
    aggregation: Aggregation = Field({"type": "token_mean"}, validate_default=True)
    heads: dict[Name, Head] = Field(default_factory=dict)
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
    ratio_tolerance: Rate | None = None
    max_grad_norm: Rate = 1.0
    memory: MemoryConfig = MemoryConfig()
    eval_every: NonNegative = 1
    eval_prompts: Positive = 64
    save_every: NonNegative = 0

    @model_validator(mode="after")
    def _fits_together(self) -> HybridConfig:
        refuse(self._misfits())
        return self

    def _misfits(self) -> Iterator[tuple[str, str]]:
        wrong = list(self.phase_problems())
        if wrong:
            yield from wrong
            return  # what follows counts steps
        size, mini, per_prompt = self.batch_size, self.minibatch_size, self.responses_per_prompt
        if size % mini:
            yield "minibatch_size", f"{mini} does not divide batch_size {size}: set one that does"
        if size % per_prompt:
            what = f"{per_prompt} does not divide batch_size {size}"
            yield "responses_per_prompt", f"{what}: set one that does"
            return  # what follows counts prompts
        yield from self.step_problems()
        yield from self._missing()
        yield from self._replay_misfits()
        if "value" in self.heads:
            yield "heads", "'value' is the name of the value head: choose another"
        sft, ppo = self.steps
        used = {"minibatch_size": mini} if ppo or not sft else {}
        used |= {"sft_batch_size": self.sft_batch_size} if sft or not ppo else {}
        yield from microbatch_problems(self.microbatch_size, used)
        yield from rate_problems(self.scheduler, self.lr, self.optimizer_steps)
        if self.memory.is_on and sft + ppo:
            yield from self._memory_misfits(has_sft=sft > 0, has_ppo=ppo > 0)

    def _missing(self) -> Iterator[tuple[str, str]]:
        """Key and sentence for what the phases or the mix need and do not have."""
        if self.steps[1] and self.reward is None:
            names = " and ".join(n for n in steps_of(self.plan) if self.samples(n))
            what = f"steps of {names} need a reward: set reward"
            yield "", f"{what}, or ppo_steps_per_cycle to 0" if names == "ppo" else what
        if self.responses_per_prompt < 2 and "pairs" in self.all_needs:
            what = "pairs are made of a prompt's responses: set at least 2"
            yield "responses_per_prompt", what
        if self.mix.needs_memory and not self.memory.is_on:
            what = f"{self.mix.type} reads the memory's records of the prompts"
            yield "memory.type", f"{what}: set one, or another mix"

    def _replay_misfits(self) -> Iterator[tuple[str, str]]:
        """Key and sentence for a replay that does not fit the batches or the memory."""
        share, mini = self.memory.replay.share, self.minibatch_size
        if self.memory.is_on and share and not self.replayed_per_minibatch:
            what = f"{share} of minibatch_size {mini} is less than half a row"
            yield "memory.replay.share", f"{what}: set at least {1 / mini:.3g}, or 0"
        if self.replayed_per_step > self.memory.capacity:
            what = f"{self.memory.capacity} is less than the {self.replayed_per_step} responses"
            yield "memory.capacity", f"{what} that memory.replay.share replays: raise it"
        if self.replayed_per_step and self.responses_per_prompt > 1:
            what = "a past response is compared with no other of its prompt"
            yield "memory.replay.share", f"{what}: set 0, or responses_per_prompt to 1"

    def _memory_misfits(self, *, has_sft: bool, has_ppo: bool) -> Iterator[tuple[str, str]]:
        """Key and sentence for each share of the memory that chooses nothing."""
        memory = self.memory
        used = [memory.rehearsal] * has_sft + [memory.prompts, memory.replay.share] * has_ppo
        if not any(used):
            only = "SFT steps: set rehearsal" if has_sft else "PPO steps: set prompts"
            yield "memory.type", f"chooses nothing in {only} above 0, or type to none"
        sizes = {"rehearsal": ("sft_batch_size", self.sft_batch_size)} if has_sft else {}
        per_prompt = " / responses_per_prompt" if self.responses_per_prompt > 1 else ""
        sizes |= {"prompts": (f"batch_size{per_prompt}", self.prompts_per_step)} if has_ppo else {}
        for key, (name, size) in sizes.items():
            share = getattr(memory, key)
            if share and not round(share * size):
                what = f"{share} of {name} {size} is not one row: set 0, or {1 / size:.3g} or more"
                yield f"memory.{key}", what

    @property
    def split_sizes(self) -> dict[str, int]:
        """By key, the numbers of rows that several processes share; of the phases that are used."""
        has_sft, has_ppo = map(bool, self.steps)
        names = ["sft_batch_size"] * has_sft + ["batch_size", "minibatch_size"] * has_ppo
        replayed = self.replayed_per_minibatch if has_ppo else 0
        rows = {"memory.replay.share (rows of a minibatch)": replayed} if replayed else {}
        return {name: getattr(self, name) for name in names} | rows

    @property
    def replayed_per_minibatch(self) -> int:
        """Past responses in each minibatch of PPO."""
        share = self.memory.replay.share if self.memory.is_on else 0.0
        return math.floor(share * self.minibatch_size + 0.5)

    @property
    def replayed_per_step(self) -> int:
        """Past responses in each PPO step."""
        return self.replayed_per_minibatch * self.batch_size // self.minibatch_size

    @property
    def decoding(self) -> dict[str, float]:
        """How responses are drawn to be learnt from."""
        drawn = {"response_tokens": self.response_tokens, "temperature": self.temperature}
        return drawn | ({"share_prompts": True} if self.responses_per_prompt > 1 else {})

    @property
    def prompts_per_step(self) -> int:
        """Prompts in each PPO step."""
        return self.batch_size // self.responses_per_prompt

    @property
    def updates_per_ppo_step(self) -> int:
        """Optimiser steps in one PPO step."""
        return self.epochs * self.batch_size // self.minibatch_size


def microbatch_problems(size: int | None, batches: Mapping[str, int]) -> list[tuple[str, str]]:
    """Key and sentence for a microbatch that is larger than each of the batches."""
    if size is None or size <= max(batches.values()):
        return []
    sizes = " and ".join(f"{key} {n}" for key, n in batches.items())
    return [("microbatch_size", f"{size} is more than {sizes}: lower it, or set null")]


def rate_problems(scheduler: SchedulerConfig, lr: float, steps: int) -> list[tuple[str, str]]:
    """Key and sentence for what does not fit the rate and the number of optimiser steps."""
    found = scheduler.misfits(lr, steps)
    return [(f"scheduler.{key}", what) for key, what in found]
