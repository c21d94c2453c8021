"""Prompts that are too long, made shorter: first the oldest turns go, then the content's beginning.

BOS, the system turn and what the chat template writes stay whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mht.data.examples.tokenize import Cut, read
from mht.data.text.texts import Codec, Read
from mht.data.text.turns import earlier_turns


def truncated(codec: Codec, cut: Cut, limit: int) -> tuple[Cut, Read] | None:
    """The longest end of a prompt that fits, as a cut and as the model reads it.

    Args:
        codec: of the model's tokenizer.
        cut: the row.
        limit: tokens of the whole prompt.

    Returns:
        None where not even one token of the last content fits.

    Raises:
        ModelError: the chat template refuses a part of the conversation.
    """
    shorter = cut
    for shorter in _fewer_turns(cut):
        prompt = read(codec, shorter)
        if len(prompt.ids) <= limit:
            return shorter, prompt
    return _end_of_content(codec, shorter, limit)


def _fewer_turns(cut: Cut) -> Iterator[Cut]:
    """The conversation without its oldest turns, up to where its last question is left."""
    messages = cut.messages or []
    first = next((i for i, m in enumerate(messages) if m["role"] != "system"), 0)
    system, turns = messages[:first], messages[first:]
    for start, turn in enumerate(turns):
        if start and turn["role"] == "user":
            yield _with_messages(cut, [*system, *turns[start:]])


def _with_messages(cut: Cut, messages: list[dict[str, str]]) -> Cut:
    return replace(cut, messages=messages, prompt="\n".join(m["content"] for m in messages))


def _end_of_content(codec: Codec, cut: Cut, limit: int) -> tuple[Cut, Read] | None:
    content = cut.messages[-1]["content"] if cut.messages else cut.prompt
    starts = codec.content_starts(content)
    first = len(read(codec, cut).ids) - limit
    while first < len(starts):
        shorter = _with_content(cut, content[starts[first] :].lstrip())
        prompt = read(codec, shorter)
        if len(prompt.ids) <= limit:
            return (shorter, prompt) if shorter.prompt else None
        first += len(prompt.ids) - limit
    return None


def _with_content(cut: Cut, content: str) -> Cut:
    if cut.messages is None:
        return replace(cut, prompt=content)
    return _with_messages(cut, [*cut.messages[:-1], {**cut.messages[-1], "content": content}])


def with_turns(item: Mapping[str, Any], cut: Cut) -> dict[str, Any]:
    """A row's other columns with the turns that are left of it."""
    others = {k: v for k, v in item.items() if k != "turns" or not earlier_turns(item)}
    turns = (cut.messages or [])[:-1]
    return {**others, "turns": turns} if turns else others
