"""The ways a reward may be called, turned into samples: one text, lists, TRL's reward_funcs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mht.data.text.sample import Sample


def is_chat(value: Any) -> bool:
    """Whether this is one chat: a list of messages with a role and a content."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, Mapping) and "content" in m for m in value)
    )


def as_text(value: Any, role: str | None = None) -> str:
    """A text as it is; a chat as its messages' contents, one a line.

    Args:
        value: a text or a chat.
        role: only this role's messages, where the chat has any.
    """
    if isinstance(value, str):
        return value
    if value == []:
        return ""
    if not is_chat(value):
        raise TypeError(f"a text or a list of chat messages is needed, got {value!r:.80}")
    chosen = [m for m in value if role is None or m.get("role") == role] or value
    return "\n".join(_content(m["content"]) for m in chosen)


def _content(content: Any) -> str:
    """The text of a message; of parts only the texts, not the images."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list | tuple):
        raise TypeError(f"a message's content is a text or a list of parts, got {content!r:.80}")
    return "".join(map(_part, content))


def _part(part: Any) -> str:
    text = part.get("text") or "" if isinstance(part, Mapping) else part
    if not isinstance(text, str):
        raise TypeError(f"a part of a message holds a text, got {part!r:.80}")
    return text


def samples_of_call(
    response: Any, target: Any, prompt: Any, item: Any
) -> tuple[list[Sample], bool]:
    """Samples for ``reward(response, target, prompt=..., item=...)``, and whether it was one text.

    Raises:
        ValueError: lists of different lengths.
    """
    single = isinstance(response, str) or is_chat(response)
    responses = [response] if single else list(response)
    count = len(responses)
    columns = zip(
        responses,
        _spread(target, count, "target"),
        _spread(prompt, count, "prompt"),
        _spread({} if item is None else item, count, "item"),
        strict=True,
    )
    return [
        Sample(as_text(p), as_text(r, "assistant"), as_text(t), i) for r, t, p, i in columns
    ], single


def samples_of_trl(
    prompts: Any, completions: Sequence[Any], columns: Mapping[str, Any]
) -> list[Sample]:
    """Samples for TRL's ``reward_func(prompts=..., completions=..., **columns)``."""
    count = len(completions)
    prompts = _spread("" if prompts is None else prompts, count, "prompts")
    target = columns.get("target")
    targets = _spread("" if target is None else target, count, "target")
    rows = {
        key: value
        for key, value in columns.items()
        if isinstance(value, list | tuple) and len(value) == count
    }
    return [
        Sample(
            as_text(prompts[i]),
            as_text(completions[i], "assistant"),
            as_text(targets[i]),
            {key: value[i] for key, value in rows.items()},
        )
        for i in range(count)
    ]


def _spread(value: Any, count: int, name: str) -> list[Any]:
    """One value for all, or one each."""
    if isinstance(value, str | Mapping) or is_chat(value):
        return [value] * count
    values = list(value)
    if len(values) != count:
        raise ValueError(f"{count} responses but {len(values)} of {name}: give one, or one each")
    return values
