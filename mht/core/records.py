"""The records that flow through the pipeline, with the shape of every tensor.

Shapes: B batch, P prompt (left-padded), R response (right-padded), T = P + R.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from mht.core.errors import ModelError
from mht.data.text.chat import render
from mht.data.text.special import broken_up
from mht.data.text.turns import earlier_turns, prompt_role

if TYPE_CHECKING:
    from torch import Tensor


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


@dataclass(frozen=True)
class Scored:
    """A reward's answer for a batch.

    Attributes:
        score: B numbers, one per response, before any KL penalty.
        components: name in the reward tree (dotted) to that node's B values; ``<name>`` holds the
            raw values, ``<name>.post`` those after its own postprocess, where it has one. What a
            node says beside its score is there too, B numbers under ``<name>.<what>``.
    """

    score: list[float]
    components: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rollout:
    """A batch of prompts with the policy's responses, as token ids (the record; text is derived).

    Attributes:
        prompt_ids: (B, P) int64, left-padded.
        prompt_mask: (B, P) bool, True = a real prompt token.
        response_ids: (B, R) int64, right-padded; EOS included where the policy gave it.
        response_mask: (B, R) bool, True = a real response token.
        ended: (B,) bool, True = stopped by EOS, False = cut by the length limit.
        logprobs: (B, R) float32 as they were when sampled, 0 at padding; None if not known.
        trunk: (B, T - 1, H) output of the policy's frozen layers, or None: no need to compute it
            again for the reference and for every epoch.
        entropies: (B, R) float32 nats of what each token was drawn from, 0 at padding; or None.
        hidden: (B, R, H) what the head saw for each token, 0 at padding: a value head needs no
            pass of its own; or None.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    response_ids: Tensor
    response_mask: Tensor
    ended: Tensor
    logprobs: Tensor | None = None
    trunk: Tensor | None = None
    entropies: Tensor | None = None
    hidden: Tensor | None = None

    def __len__(self) -> int:
        return self.prompt_ids.shape[0]

    @property
    def prompts(self) -> Tensor:
        """(B,) int64, equal where the prompts are."""
        return distinct(self.prompt_ids, self.prompt_mask)[1]

    @property
    def input_ids(self) -> Tensor:
        """(B, T) prompt and response."""
        import torch

        return torch.cat([self.prompt_ids, self.response_ids], 1)

    @property
    def attention_mask(self) -> Tensor:
        """(B, T) bool, True = a real token."""
        import torch

        return torch.cat([self.prompt_mask, self.response_mask], 1)

    @property
    def lengths(self) -> Tensor:
        """(B,) int64, real tokens of each response."""
        return self.response_mask.sum(1)

    def rows(self, index: Tensor) -> Rollout:
        """The rollout of some of the rows, in the order of ``index`` (int64)."""
        picked = {f.name: getattr(self, f.name) for f in fields(self)}
        return Rollout(**{k: None if v is None else v[index] for k, v in picked.items()})


def distinct(prompt_ids: Tensor, prompt_mask: Tensor) -> tuple[Tensor, Tensor]:
    """A row (U,) of each different prompt, and which of these U each row (B,) has; int64.

    Args:
        prompt_ids: (B, P) int64, left-padded.
        prompt_mask: (B, P) bool, True = a real token.
    """
    different, which = prompt_ids.masked_fill(~prompt_mask, -1).unique(dim=0, return_inverse=True)
    numbers = which.new_ones(len(which)).cumsum(0) - 1
    first = which.new_full((len(different),), len(which))
    return first.scatter_reduce(0, which, numbers, "amin"), which
