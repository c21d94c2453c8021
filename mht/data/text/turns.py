"""The turns of a conversation that come before a prompt, as a data row's ``item`` keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TURNS, PROMPT_ROLE = "turns", "prompt_role"  # our keys of ``item``


def is_turn(value: Any) -> bool:
    """Whether this is a message: a mapping with a role and a content, both texts."""
    return isinstance(value, Mapping) and all(
        isinstance(value.get(key), str) for key in ("role", "content")
    )


def earlier_turns(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conversation before the prompt; none where ``item["turns"]`` is a column of the data.

    >>> earlier_turns({"turns": [{"role": "user", "content": "Hi"}]})
    [{'role': 'user', 'content': 'Hi'}]
    >>> earlier_turns({"turns": 3}), earlier_turns({})
    ([], [])
    """
    turns = item.get(TURNS)
    if not isinstance(turns, list) or not all(map(is_turn, turns)):
        return []
    return [dict(turn) for turn in turns]


def prompt_role(item: Mapping[str, Any]) -> str:
    """Who speaks the prompt: the user, unless the conversation ends with a tool's result.

    >>> prompt_role({"prompt_role": "tool"}), prompt_role({"prompt_role": 5})
    ('tool', 'user')
    """
    role = item.get(PROMPT_ROLE)
    return role if role in ("system", "assistant", "tool") else "user"
