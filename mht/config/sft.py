"""The section of supervised fine-tuning before the cycles."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from mht.config.cycles import Plan
from mht.config.optim import OptimizerConfig, SchedulerConfig
from mht.config.training import HybridConfig, microbatch_problems, rate_problems
from mht.core.bounds import MOST_STEPS, Positive, Rate
from mht.core.component import Section, refuse


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

    steps: Annotated[int, Field(ge=0, le=MOST_STEPS)]
    batch_size: Positive = 16
    microbatch_size: Positive | None = None
    lr: Rate = 1e-4
    max_grad_norm: Rate = 1.0
    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    eval_every: Positive = 20
    eval_examples: Positive = 128

    @model_validator(mode="after")
    def _fits_together(self) -> SFTConfig:
        batches = {"batch_size": self.batch_size}
        microbatches = microbatch_problems(self.microbatch_size, batches)
        refuse([*microbatches, *rate_problems(self.scheduler, self.lr, self.steps)])
        return self

    @property
    def plan(self) -> Plan:
        """A cycle of SFT steps between two validation losses."""
        whole, rest = divmod(self.steps, self.eval_every)
        cycles = [self.eval_every] * whole + [rest] * bool(rest)
        return [(("sft", steps),) for steps in cycles]

    @property
    def optimizer_steps(self) -> int:
        """Optimiser steps of the whole stage."""
        return self.steps

    def as_cycles(self) -> HybridConfig:
        """The same settings for the alternating loop: one cycle of SFT steps alone."""
        return HybridConfig(
            cycles=min(self.steps, 1),
            sft_steps_per_cycle=self.steps,
            ppo_steps_per_cycle=0,
            sft_batch_size=self.batch_size,
            microbatch_size=self.microbatch_size,
            lr=self.lr,
            max_grad_norm=self.max_grad_norm,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
        )
