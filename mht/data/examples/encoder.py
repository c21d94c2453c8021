"""Prompts and targets as examples: their tokens, targets with EOS, limits checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from mht.config import DataConfig
from mht.core.errors import DataError, UserError
from mht.data.examples.example import Example
from mht.data.examples.limits import Limits
from mht.data.examples.tokenize import Cut, behind, read
from mht.data.examples.truncate import truncated, with_turns
from mht.data.text.texts import Codec, Read


class Encoder:
    """Rows to token ids for one tokenizer and one set of options."""

    def __init__(self, codec: Codec, config: DataConfig, limits: Limits):
        self.codec, self.config, self.limits = codec, config, limits

    def encode(
        self, cut: Cut, item: Mapping[str, Any], row: int, counts: Counter[str]
    ) -> Example | None:
        """The example of a row; None when its prompt is too long and is to be dropped.

        Args:
            cut: the row as prompt and target.
            item: the row's other columns.
            row: its number in the source, from 1, for messages.
            counts: gets one more for what was dropped, truncated or cut.

        Raises:
            DataError: its prompt is too long and ``long_prompts`` is "error", or the chat template
                refuses it.
        """
        try:
            prompt = read(self.codec, cut)
            if len(prompt.ids) > self.limits.prompt:
                shorter = self._shorter(cut, row, len(prompt.ids), counts)
                if shorter is None:
                    return None
                cut, prompt = shorter
                item = with_turns(item, cut)
            cut = behind(prompt, cut)
            target_ids = self._target_ids(prompt, cut.target)
        except UserError as error:
            raise DataError(f"row {row} of data.source: {error}") from None
        counts["targets_cut"] += target_ids[-1] != self.codec.tokenizer.eos_token_id
        return Example(
            cut.key[:16], cut.prompt, cut.target, prompt.ids, target_ids, item, cut.joiner
        )

    def _shorter(
        self, cut: Cut, row: int, length: int, counts: Counter[str]
    ) -> tuple[Cut, Read] | None:
        """What ``long_prompts`` makes of a prompt of that many tokens."""
        if self.config.long_prompts == "error":
            raise DataError(self._too_long(cut, length))
        shorter = None
        if self.config.long_prompts == "truncate":
            shorter = truncated(self.codec, cut, self.limits.prompt)
        counts["prompts_truncated" if shorter else "dropped_long_prompt"] += 1
        return shorter

    def _target_ids(self, prompt: Read, target: str) -> list[int]:
        ids = self.codec.target_ids(prompt, target)
        limit = self.config.max_target_tokens
        return ids[:limit] if len(ids) > limit else [*ids, self.codec.tokenizer.eos_token_id]

    def _too_long(self, cut: Cut, length: int) -> str:
        return (
            f"its prompt has {length} tokens, the limit is {self.limits.prompt} ({self.limits}): "
            f"{cut.prompt[:40]!r}... Set data.long_prompts to drop or truncate, or raise the limit"
        )
