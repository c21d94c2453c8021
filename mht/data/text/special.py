"""Special tokens: what ends a response, and which tokens are control and which are content."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from mht.core.errors import ModelError
from mht.data.text.chat import render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Text = TypeVar("Text", str, tuple[str, str])
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
ROLES = (("user",), ("system", "user"), ("user", "assistant", "user"))


def end_ids(*parts: Any) -> set[int]:
    """Every token id that ends a response.

    Args:
        parts: what may name some, as ``eos_token_id``: the tokenizer, the model's config, that of
            its generation; None where there is none.
    """
    named = (getattr(part, "eos_token_id", None) for part in parts)
    lists = [ids if isinstance(ids, list | tuple) else [ids] for ids in named]
    return {int(i) for ids in lists for i in ids if i is not None}


def control_tokens(tokenizer: PreTrainedTokenizerBase, ends: Iterable[int] = ()) -> dict[str, int]:
    """The control tokens with their ids.

    These are the named ones (BOS, EOS, PAD...), what ends a response, and the special tokens of
    the chat template. Other special tokens, such as ``<answer>``, are content.

    Args:
        tokenizer: whose.
        ends: more ids that end a response (`end_ids`).
    """
    named = {str(getattr(tokenizer, name)) for name in NAMED if getattr(tokenizer, name)}
    ends, template = set(ends), _template_text(tokenizer)
    return {
        token.content: number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.content in named or number in ends or (token.special and token.content in template)
    }


def _template_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat template and what it writes: some put their tokens together from parts."""
    if not tokenizer.chat_template:
        return ""
    written = [str(tokenizer.chat_template)]
    for roles in ROLES:
        try:
            written.append(render(tokenizer, [{"role": r, "content": "x"} for r in roles]))
        except ModelError:
            continue  # it does not take these roles
    return "\0".join(written)


def broken_up(text: Text, tokenizer: Any) -> Text:
    """A text, or a pair, with a space in each control token that it spells out.

    Models that judge texts read them so. Else a response could end its own turn, or split a text
    in two. Other special tokens, such as ``<answer>``, stay.
    """
    if isinstance(text, tuple):
        return broken_up(text[0], tokenizer), broken_up(text[1], tokenizer)
    return _spelt_out(tokenizer).sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


@lru_cache(maxsize=16)
def _spelt_out(tokenizer: Any) -> re.Pattern[str]:
    tokens = [token for token in control_tokens(tokenizer) if len(token) > 1 and token.strip()]
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)")
