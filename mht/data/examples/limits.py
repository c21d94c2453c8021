"""How long a prompt may be: the model's context less the longest response of any section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mht.config import Config
from mht.core.errors import DataError

# what configurations call their number of positions, where transformers knows no common name
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length")


def context_of(config: Any) -> int | None:
    """The positions of a model, of its text part where it has several; None has no limit."""
    text = config.get_text_config()
    found = (getattr(text, name, None) for name in POSITIONS)
    return next((int(n) for n in found if isinstance(n, int) and n > 0), None)


def response_lengths(config: Config) -> dict[str, int]:
    """How long responses may be, by setting; a target and its EOS count as one."""
    return {
        "ppo.response_tokens": config.ppo.response_tokens,
        **{
            f"baselines.{name}.response_tokens": row.response_tokens
            for name, row in config.baselines.items()
            if not row.like or row.response_tokens != config.ppo.response_tokens
        },
        "evaluate.decoding.response_tokens": config.evaluate.decoding.response_tokens,
        "data.max_target_tokens": config.data.max_target_tokens + 1,
    }


@dataclass(frozen=True)
class Limits:
    """How long a prompt may be, and why.

    Attributes:
        max_prompt_tokens: from params.yaml.
        context: positions of the model; None has no limit.
        reserved: tokens of the context that responses and targets need.
        lengths: what the settings need, by name.
    """

    max_prompt_tokens: int
    context: int | None
    reserved: int
    lengths: Mapping[str, int] = field(default_factory=dict)

    @property
    def prompt(self) -> int:
        """The longest prompt in tokens."""
        room = self.max_prompt_tokens if self.context is None else self.context - self.reserved
        return min(self.max_prompt_tokens, room)

    def check(self) -> None:
        """Refuse a context without room for a prompt.

        Raises:
            DataError: there is none.
        """
        if self.prompt < 1:
            names = [n for n, length in self.lengths.items() if length >= (self.context or 0)]
            raise DataError(
                f"{names[0]}: the model's context is {self.context} tokens and {self.reserved} of "
                f"them are for the response: lower {' and '.join(names)}"
            )

    def __str__(self) -> str:
        longest = max(self.lengths, key=lambda name: self.lengths[name], default=None)
        by = f" ({longest})" if longest else ""
        context = f", the model's context {self.context}" if self.context else ""
        return (
            f"data.max_prompt_tokens is {self.max_prompt_tokens}{context} with {self.reserved} "
            f"of it for the response{by}"
        )
