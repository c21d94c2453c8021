"""Cleaned rows as prompts and targets, and prompts as the model reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from mht.data.text.clean import content_key, group_key
from mht.data.text.sample import joiner
from mht.data.text.texts import Codec, Read
from mht.data.text.turns import earlier_turns, prompt_role
from mht.data.text.words import pieces


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
        joiner: what stands between prompt and target where no chat template says so.
    """

    prompt: str
    target: str
    messages: list[dict[str, str]] | None
    key: str
    group: str
    joiner: str = ""


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
    item = row.get("item", {})
    messages = [*earlier_turns(item), {"role": prompt_role(item), "content": row["prompt"]}]
    texts = [turn["content"] for turn in messages]
    opening = next((t["content"] for t in messages if t["role"] == "user"), texts[0])
    key = content_key(*texts, row["target"])
    prompt, target = "\n".join(texts), row["target"]
    between = joiner(prompt, target)
    return Cut(prompt, target, messages, key, group_key(opening), between)


def read(codec: Codec, cut: Cut) -> Read:
    """The prompt as the model reads it: in the chat template if it is a conversation.

    Raises:
        ModelError: the template refuses it.
    """
    if cut.messages and codec.tokenizer.chat_template:
        return codec.read_chat(cut.messages)
    return codec.read_text(cut.prompt + cut.joiner)


def behind(prompt: Read, cut: Cut) -> Cut:
    """The row with its target as it stands behind the prompt: no space follows a template."""
    return replace(cut, target=cut.target.lstrip(" ")) if prompt.templated else cut
