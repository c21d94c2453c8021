"""Instructions to a causal language model: templates that texts are put into, as its tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mht.core.component import did_you_mean
from mht.core.errors import ModelError, first_line
from mht.data.text.special import broken_up
from mht.data.text.truncation import beginning, end
from mht.rewards.models.causal_lm import CausalLM

PLACEHOLDER = re.compile(r"\{(\w+)\}")
CUT_ORDER = ("prompt", "target", "response")  # what is cut first
TOKENS = 8192  # of an instruction, for models that do not say what they take


def names_in(template: str, known: Iterable[str]) -> set[str]:
    """The placeholders of a template, such as "response" for ``{response}``.

    Raises:
        ValueError: one of them is not known.
    """
    found = PLACEHOLDER.findall(template)
    names = list(known)
    for name in found:
        if name not in names:
            hint = did_you_mean(name, names)
            there = ", ".join("{" + n + "}" for n in names)
            raise ValueError(f"has an unknown placeholder {{{name}}}{hint}; there are {there}")
    return set(found)


def fill(template: str, texts: Mapping[str, str]) -> str:
    """The template with its texts; braces inside a text are left as they are.

    >>> fill("{a} and {b}", {"a": "{b}", "b": "x"})
    '{b} and x'
    """
    return PLACEHOLDER.sub(lambda found: texts[found[1]], template)


class Instruction:
    """A template in a model's own format.

    A model with a chat template gets the filled template as the user's turn, after the system's
    turn if there is one. One without gets plain text: system, template, ``opening``.

    Args:
        model: reads it.
        template: with placeholders.
        system: the system's turn; None for none.
        opening: what plain text ends with.

    Attributes:
        cut: whether a text was too long so far.
    """

    def __init__(self, model: CausalLM, template: str, system: str | None, opening: str):
        self.model, self.template = model, template
        self.system, self.opening = system, opening
        self.cut = False
        self.chat = bool(model.tokenizer.chat_template)

    def ids(self, texts: Mapping[str, str], fixed: Mapping[str, str], room: int) -> list[int]:
        """The tokens, the texts cut where it would be more than ``room``.

        A prompt loses its beginning first, then a target its end. A response loses its end only
        where it is too long by itself. `cut` is then true. Control tokens that are spelt out in a
        text are broken up: a response can't end its turn.

        Raises:
            ModelError: the template leaves no room for a text.
        """
        clean = {name: broken_up(text, self.model.tokenizer) for name, text in texts.items()}
        there = [name for name in CUT_ORDER if f"{{{name}}}" in self.template]
        while True:
            ids = self._tokens(self._text(fill(self.template, {**clean, **fixed})))
            if len(ids) <= room:
                return ids
            name = next((name for name in there if clean[name]), None)
            if name is None:
                raise ModelError(
                    f"the template alone has {len(ids)} tokens, and there is room for {room}: "
                    f"shorten it, or take another model"
                )
            shorter = end if name == "prompt" else beginning
            clean[name] = shorter(clean[name], len(ids) - room, self.model.tokenizer)
            self.cut = True

    def answers(self, texts: Mapping[str, str], answers: Sequence[str]) -> list[list[int]]:
        """Each answer's tokens, as they follow the instruction.

        Args:
            texts: for every placeholder; what they are should not matter.
            answers: the answers.

        Raises:
            ModelError: two of them are the same to the model, or one has no token.
        """
        before = self._text(fill(self.template, texts))
        start = self._tokens(before)
        found = [self._after(before, start, answer) for answer in answers]
        for i, ids in enumerate(found):
            same = [answers[k] for k in range(i) if found[k] == ids]
            if same or not ids:
                what = f"can't tell {answers[i]!r} from {(*same, 'nothing')[0]!r}"
                raise ModelError(f"the model {what}: take other words")
        return found

    def _after(self, before: str, start: list[int], answer: str) -> list[int]:
        answer = answer if self.chat or not before or before[-1].isspace() else f" {answer}"
        whole = self._tokens(before + answer)
        if whole[: len(start)] == start:
            return whole[len(start) :]
        return self.model.encode(answer)

    def _tokens(self, text: str) -> list[int]:
        ids = self.model.encode(text)
        return ids if self.chat else self.model.with_start(ids)

    def _text(self, filled: str) -> str:
        if not self.chat:
            return "\n\n".join(filter(None, [self.system, filled])) + self.opening
        from jinja2.exceptions import TemplateError

        turns = [("system", self.system), ("user", filled)]
        messages: list[dict[str, Any]] = [
            {"role": role, "content": text} for role, text in turns if text is not None
        ]
        try:
            return self.model.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except TemplateError as error:
            hint = ": leave system out" if self.system is not None else ""
            raise ModelError(
                f"the model's chat template refuses the turns ({first_line(error)}){hint}"
            ) from error
