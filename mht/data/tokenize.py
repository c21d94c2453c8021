"""Cleaned rows as token ids: cut or chat-formatted prompts, targets with EOS, limits checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from mht.data.clean import content_key, group_key
from mht.data.examples import Example
from mht.errors import DataError
from mht.words import pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mht.config import DataConfig


@dataclass(frozen=True)
class Cut:
    """A row as prompt and target, before tokenising.

    Attributes:
        prompt: plain text.
        target: with its leading space where it continues the prompt.
        messages: the conversation with the prompt as its last turn; None for a continuation.
        key: sha256 of the whole content; duplicates share it.
        group: sha256 of what must not be in two splits: the text, or the opening question,
            without punctuation.
    """

    prompt: str
    target: str
    messages: list[dict[str, str]] | None
    key: str
    group: str


def cut_row(row: Mapping[str, Any], prompt_words: int, segmenter: str = "characters") -> Cut:
    """Prompt and target of a cleaned row; a text no longer than the prompt has the target "".

    Args:
        row: as a source gives it, cleaned.
        prompt_words: words of a text that are its prompt, with the punctuation that clings to them.
        segmenter: what a word is in a script without spaces.
    """
    if "text" in row:
        head = list(islice(pieces(row["text"], segmenter), prompt_words))
        end = head[-1][1] if head else 0
        keys = content_key(row["text"]), group_key(row["text"])
        return Cut(row["text"][:end], row["text"][end:], None, *keys)
    turns = row.get("item", {}).get("turns", [])
    messages = [*turns, {"role": "user", "content": row["prompt"]}]
    texts = [turn["content"] for turn in messages]
    opening = next(turn["content"] for turn in messages if turn["role"] == "user")
    key = content_key(*texts, row["target"])
    return Cut("\n".join(texts), row["target"], messages, key, group_key(opening))


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, cut: Cut) -> list[int]:
    """Token ids of a prompt: in the tokenizer's chat template if it is a conversation."""
    if cut.messages and tokenizer.chat_template:
        text = tokenizer.apply_chat_template(
            cut.messages, add_generation_prompt=True, tokenize=False
        )
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    text = f"{cut.prompt}\n" if cut.messages else cut.prompt
    ids = tokenizer(text)["input_ids"]
    while ids and ids[-1] == tokenizer.eos_token_id:  # some append it; more text follows
        ids.pop()
    return ids


@dataclass(frozen=True)
class Limits:
    """How long a prompt may be, and why.

    Attributes:
        max_prompt_tokens: from params.yaml.
        context: positions of the model; None has no limit.
        reserved: tokens of the context that responses and targets need.
    """

    max_prompt_tokens: int
    context: int | None
    reserved: int

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
            raise DataError(
                f"the model's context is {self.context} tokens and {self.reserved} of them are "
                "for the response: lower ppo.response_tokens and data.max_target_tokens"
            )

    def __str__(self) -> str:
        context = f", the model's context {self.context}" if self.context else ""
        return (
            f"data.max_prompt_tokens is {self.max_prompt_tokens}{context} with {self.reserved} "
            "of it for the response"
        )


class Encoder:
    """Rows to token ids for one tokenizer and one set of options."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: DataConfig, limits: Limits):
        self.tokenizer, self.config, self.limits = tokenizer, config, limits

    def encode(
        self, cut: Cut, item: Mapping[str, Any], row: int, counts: Counter[str]
    ) -> Example | None:
        """The example of a row; None when its prompt is too long and ``long_prompts`` is "drop".

        Args:
            cut: the row as prompt and target.
            item: the row's other columns.
            row: its number in the source, from 1, for messages.
            counts: gets one more for what was dropped, truncated or cut.

        Raises:
            DataError: its prompt is too long and ``long_prompts`` is "error".
        """
        prompt_ids = prompt_tokens(self.tokenizer, cut)
        if len(prompt_ids) > self.limits.prompt:
            if self.config.long_prompts == "drop":
                counts["dropped_long_prompt"] += 1
                return None
            if self.config.long_prompts == "error":
                raise DataError(self._too_long(cut, row, len(prompt_ids)))
            counts["prompts_truncated"] += 1
            prompt_ids = prompt_ids[-self.limits.prompt :]
        target_ids = self._target_ids(cut.target)
        counts["targets_cut"] += target_ids[-1] != self.tokenizer.eos_token_id
        return Example(cut.key[:16], cut.prompt, cut.target, prompt_ids, target_ids, item)

    def _target_ids(self, target: str) -> list[int]:
        ids = self.tokenizer(target, add_special_tokens=False)["input_ids"]
        limit = self.config.max_target_tokens
        return ids[:limit] if len(ids) > limit else [*ids, self.tokenizer.eos_token_id]

    def _too_long(self, cut: Cut, row: int, length: int) -> str:
        return (
            f"row {row} of data.source: its prompt has {length} tokens, the limit is "
            f"{self.limits.prompt} ({self.limits}): {cut.prompt[:40]!r}... Set data.long_prompts "
            "to drop or truncate, or raise the limit"
        )
