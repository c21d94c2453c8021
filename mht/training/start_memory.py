"""The memory that a training run begins with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mht.config import HybridConfig
from mht.core.errors import ConfigError, UserError
from mht.data.examples.example import Example
from mht.memory import Memory, Rows, make_memory, table
from mht.rewards import Reward

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class StartError(ConfigError):
    """A memory's settings don't fit the data or its start; their paths lack the section's name."""


def memory_identity(
    config: HybridConfig, tokenizer: PreTrainedTokenizerBase, reward: Reward | None
) -> dict[str, Any]:
    """What a stored memory must have been made with; it checks the training data itself.

    The tokenizer, for its token ids; the reward, which makes scores comparable; the
    temperature, for the logprobs; and the settings that its records follow from.
    """
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    settings = config.memory
    return {
        "tokenizer": sha256(vocabulary.encode()).hexdigest(),
        "reward": reward and reward.model_dump(mode="json"),
        "temperature": config.temperature,
        "memory.type": settings.type,
        "memory.difficulty": settings.difficulty.model_dump(),
        f"memory.{settings.type}": settings.options,
    }


def start_memory(
    config: HybridConfig,
    examples: Sequence[Example],
    embeddings: NDArray[np.float32] | None,
    identity: dict[str, Any],
) -> Memory:
    """An empty memory of the training data, or the stored one that the settings name.

    Args:
        config: the settings; its memory is switched on.
        examples: the training data.
        embeddings: (examples, D) of their prompts, for a memory that groups them.
        identity: see `memory_identity`.

    Raises:
        ConfigError: there is no training data.
        StartError: the settings or the stored memory do not fit.
    """
    memory = _empty(config, examples, embeddings)
    if config.memory.start is not None:
        try:
            table.load(memory, config.memory.start, identity)
        except UserError as error:
            what = f"memory.start: {error}: give a memory of this task, or null"
            raise StartError([what]) from None
    return memory


def _empty(
    config: HybridConfig, examples: Sequence[Example], embeddings: NDArray[np.float32] | None
) -> Memory:
    settings = config.memory
    if not examples:
        what = f"{settings.type} remembers rows of the training data, and there is none"
        raise ConfigError([f"memory.type: {what}: give train_data, or set none"])
    rows = Rows(
        [e.prompt for e in examples],
        [e.target for e in examples],
        [e.prompt_ids for e in examples],
    )
    options = dict(settings.difficulty) | settings.options
    options |= {"embeddings": embeddings} if settings.groups_prompts else {}
    try:
        return make_memory(settings.type, rows, capacity=settings.capacity, **options)
    except ConfigError as error:
        raise StartError(error.problems) from None
