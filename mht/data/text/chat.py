"""Conversations in a tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mht.core.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# what an expression in a template may raise, beside jinja's own errors
RAISED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
) -> str:
    """A conversation in the tokenizer's chat template.

    Args:
        tokenizer: one that has a template.
        messages: the turns, with ``role`` and ``content``.
        add_generation_prompt: end with the header of the answer.

    Raises:
        ModelError: the template refuses it.
    """
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(
            [dict(m) for m in messages],
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
    except (TemplateError, *RAISED) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        roles = ", ".join(str(m.get("role")) for m in messages)
        raise ModelError(
            f"the model's chat template refuses a conversation of {roles}: {reason}"
        ) from None
