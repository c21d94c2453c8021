"""The trainer as the settings of params.yaml have it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mht.config import BaseConfig, Config, HybridConfig, ModelConfig
from mht.data.examples.example import Example
from mht.generation.sampling.rollout import Responder
from mht.rewards import Reward
from mht.training.hybrid import HybridTrainer
from mht.training.practice import section_named
from mht.training.validation import Validation


def make_trainer(
    start: str | Path,
    train_data: Sequence[Example],
    settings: HybridConfig,
    *,
    section: str,
    base: BaseConfig,
    model: ModelConfig,
    sft_rows: int = 0,
) -> HybridTrainer:
    """The trainer of a stage.

    It has a reward and a mix of its own. What they learn while it trains does not reach the next
    trainer with the same settings, such as that of another seed.

    Args:
        start: the model folder to start from.
        train_data: examples to walk through.
        settings: of its cycles.
        section: where they stand in params.yaml, for messages.
        base: the seed and the device.
        model: what of the model trains, and in which precision.
        sft_rows: rows that the SFT steps behind ``start`` have seen: the first to walk is the next.

    Raises:
        ConfigError: the memory's settings do not fit, with the full path of each.
    """
    with section_named(section):
        trainer = HybridTrainer(
            start,
            train_data=train_data,
            config=_anew(settings),
            num_layers_unfrozen=model.num_layers_unfrozen,
            lora=model.lora,
            context_window=model.context_window,
            seed=base.seed,
            device=base.device,
            dtype=model.dtype,
            gradient_checkpointing=model.gradient_checkpointing,
        )
    if sft_rows:
        trainer.practice.cursors["sft"].position = sft_rows
    return trainer


def _anew(settings: HybridConfig) -> HybridConfig:
    """The same settings; what may have a state begins without one."""
    parts = {"reward": settings.reward, "mix": settings.mix}
    fresh = {
        name: type(part).model_validate(part.model_dump())
        for name, part in parts.items()
        if part is not None
    }
    return settings.model_copy(update=fresh)


def experiment_look(
    trainer: HybridTrainer, experiment: Config, examples: Sequence[Example]
) -> Validation:
    """How everything that an experiment compares is looked at, whatever it is trained by.

    Args:
        trainer: of one of the variants or trials.
        experiment: whose ``ppo`` says the reward, the sampling and the number of prompts.
        examples: for validation.
    """
    settings, own = experiment.ppo, trainer.responder
    return Validation(
        trainer.policy,
        Responder(own.model, own.tokenizer, settings.decoding, own.trunk),
        examples[: settings.eval_prompts],
        settings.reward if isinstance(settings.reward, Reward) else None,
        seed=experiment.base.seed,
        batch_size=64,
    )
