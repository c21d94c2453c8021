"""A prompt with the response to it, as text: what rewards and metrics see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mht.core.errors import ModelError
from mht.data.text.chat import render
from mht.data.text.special import broken_up
from mht.data.text.turns import earlier_turns, prompt_role


def joiner(prompt: str, *continuations: str) -> str:
    r"""What stands between a prompt and its answer where no chat template says so.

    Nothing where the prompt is empty or whitespace is there already; else a new line.

    Args:
        prompt: the text before it.
        continuations: what may follow, such as target and response.

    >>> joiner("How was it?", "Great"), joiner("The film is", " great")
    ('\n', '')
    """
    is_apart = not prompt or prompt[-1].isspace() or any(c[:1].isspace() for c in continuations)
    return "" if is_apart else "\n"


@dataclass(frozen=True)
class Sample:
    """One prompt with the policy's response, as text: what a reward and a metric see.

    Attributes:
        prompt: what the policy was given.
        response: what the policy wrote, without the prompt.
        target: the reference text, or "" where the data has none.
        item: the whole data row, for rewards that need more than the texts.
        joiner: what stands between prompt and response; None takes what `joiner` says.
    """

    prompt: str
    response: str
    target: str = ""
    item: Mapping[str, Any] = field(default_factory=dict)
    joiner: str | None = None

    @property
    def full(self) -> str:
        r"""The prompt and the response as one text.

        >>> Sample("The film is", " great").full, Sample("How was it?", "Great").full
        ('The film is great', 'How was it?\nGreat')
        """
        given = self.joiner
        between = joiner(self.prompt, self.target, self.response) if given is None else given
        return self.prompt + between + self.response

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation, as chat templates take it: earlier turns, prompt and response.

        The turns are those of ``item["turns"]``, with which the prompt then begins.
        """
        turns = earlier_turns(self.item)
        before = "\n".join([*(turn["content"] for turn in turns), ""])
        last = self.prompt.removeprefix(before) if turns else self.prompt
        said = [(prompt_role(self.item), last), ("assistant", self.response)]
        return [*turns, *({"role": role, "content": content} for role, content in said)]

    def as_read(self, text: str, tokenizer: Any = None) -> str | tuple[str, str]:
        """What a classifier is given of the sample.

        Args:
            text: "response", "full", "pair" (prompt and response, for two segments), or "chat"
                (the conversation, rendered, without a BOS that the tokenizer adds anyway).
            tokenizer: the classifier's, whose chat template renders "chat". Its control tokens are
                broken up in the sample's texts; None leaves them.

        Raises:
            ModelError: it has no template, or one that does not take this conversation.
        """
        if text == "pair":
            pair = self.prompt, self.response
            return pair if tokenizer is None else broken_up(pair, tokenizer)
        if text != "chat":
            plain = self.full if text == "full" else self.response
            return plain if tokenizer is None else broken_up(plain, tokenizer)
        if not tokenizer.chat_template:
            raise ModelError("the model's tokenizer has no chat template: set text to pair or full")
        turns = [{**m, "content": broken_up(m["content"], tokenizer)} for m in self.messages]
        chat = render(tokenizer, turns, add_generation_prompt=False)
        adds_bos = tokenizer.bos_token and tokenizer("")["input_ids"][:1] == [
            tokenizer.bos_token_id
        ]
        return chat.removeprefix(tokenizer.bos_token) if adds_bos else chat
