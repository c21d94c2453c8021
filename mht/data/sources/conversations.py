"""Lists of messages, in the forms that public data sets have, as turns of a conversation.

``{"role", "content"}`` (OpenAI, TRL), ``{"from", "value"}`` (ShareGPT), contents as lists of parts,
and the texts of HH-RLHF, which begin with "Human:" (Bai et al. 2022, arXiv:2204.05862).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mht.core.errors import DataError
from mht.data.sources.shown import quoted, shown

Turn = dict[str, Any]
ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "ai", "model"), "assistant"),
    "function_call": "assistant",
    **dict.fromkeys(("tool", "function", "ipython", "observation", "function_response"), "tool"),
}
EXTRAS = ("name", "tool_calls", "tool_call_id")  # what chat templates read beside the content
HH_TURN = re.compile(r"\n\n(Human|Assistant):")


def is_conversation(value: Any) -> bool:
    """Whether a column's value is meant as messages and not as a text."""
    return isinstance(value, list) or (isinstance(value, Mapping) and bool(_keys(value)))


def read_turns(where: str, column: str, value: Any) -> list[Turn]:
    """The messages as ``{"role", "content"}``, with the roles system, user, assistant and tool.

    Args:
        where: the row's place, for messages.
        column: the column's name, for messages.
        value: a list of messages, or one message.

    Raises:
        DataError: a message has no role or content, an unknown role, or a part that is no text.
    """
    messages = [value] if isinstance(value, Mapping) else value
    place = f"{where}: column {quoted(column)}"
    if not isinstance(messages, list):
        raise DataError(
            f'{place}: should be a list of {{"role", "content"}}, got {shown(value)} '
            f"({type(value).__name__})"
        )
    return [_turn(place, message) for message in messages]


def _keys(message: Mapping[Any, Any]) -> tuple[str, str] | None:
    pairs = (("role", "content"), ("from", "value"))
    return next((pair for pair in pairs if pair[0] in message and pair[1] in message), None)


def _turn(place: str, message: Any) -> Turn:
    keys = _keys(message) if isinstance(message, Mapping) else None
    if keys is None and isinstance(message, Mapping) and message.get("tool_calls"):
        message, keys = {"content": None, **message}, ("role", "content")
    if keys is None or keys[0] not in message:
        raise DataError(
            f'{place}: a conversation is a list of {{"role", "content"}}, got {shown(message)}'
        )
    role = message[keys[0]]
    known = ROLES.get(role.strip().casefold()) if isinstance(role, str) else None
    if known is None:
        raise DataError(
            f"{place}: a message has the role {shown(role)}: the roles are system, user, "
            "assistant and tool"
        )
    extras = {key: message[key] for key in EXTRAS if message.get(key)}
    return {"role": known, "content": _content(place, message[keys[1]]), **extras}


def _content(place: str, content: Any) -> str:
    if isinstance(content, list):
        return "".join(_part(place, part) for part in content)
    if content is None:
        return ""  # an assistant that calls a tool says nothing
    if not isinstance(content, str):
        kind = type(content).__name__
        raise DataError(
            f"{place}: the content of a message should be a string, got {shown(content)} ({kind})"
        )
    return content


def _part(place: str, part: Any) -> str:
    """The text of a part of a message; images and sounds are not read."""
    text = part.get("text") if isinstance(part, Mapping) else part
    kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
    if not isinstance(text, str) or kind not in ("text", "input_text", "output_text"):
        raise DataError(
            f"{place}: a message holds a part that is no text, got {shown(part)}: give "
            "{'type': 'text', 'text': ...} or a string"
        )
    return text


def split_answer(turns: list[Turn]) -> tuple[list[Turn], str]:
    """The turns before the last answer that has a text, and that answer; "" where there is none.

    >>> split_answer([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])
    ([{'role': 'user', 'content': 'q'}], 'a')
    """
    for end in range(len(turns) - 1, -1, -1):
        if turns[end]["role"] == "assistant" and turns[end]["content"].strip():
            return turns[:end], turns[end]["content"]
    return turns, ""


def read_hh(text: Any) -> list[Turn] | None:
    r"""The turns of a text of HH-RLHF that ends with an answer; None where it is none.

    >>> [t["content"] for t in read_hh("\n\nHuman: Why?\n\nAssistant: So.") or ()]
    ['Why?', 'So.']
    """
    if not isinstance(text, str) or not text.lstrip().startswith("Human:"):
        return None
    _, *pieces = HH_TURN.split(f"\n\n{text.lstrip()}")
    if pieces[-2] != "Assistant":
        return None
    pairs = zip(pieces[::2], pieces[1::2], strict=True)
    return [{"role": ROLES[who.casefold()], "content": said.strip()} for who, said in pairs]
