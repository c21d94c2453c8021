"""From prompts to rollouts, and from rollouts to the texts that rewards see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mht.core.errors import DataError, ModelError
from mht.core.records import Rollout
from mht.data.examples.example import Example, collate_prompts
from mht.data.text.sample import Sample
from mht.data.text.special import end_ids
from mht.data.text.texts import Codec
from mht.generation.sampling.decode import sample
from mht.generation.sampling.draw import Generator
from mht.generation.sampling.padding import content_mask, left_padded, response_content
from mht.models.readers import policy_model
from mht.models.trunk import Trunk

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def end_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Every token id that ends a response."""
    return end_ids(tokenizer) | policy_model(model).ends


def pad_token(tokenizer: PreTrainedTokenizerBase, ends: set[int]) -> int:
    """The token that fills batches.

    Raises:
        ModelError: there is none, or it also ends responses: a response's own end would be taken
            for padding.
    """
    pad, name = tokenizer.pad_token_id, tokenizer.pad_token
    if pad is None or pad in ends:
        what = "no padding token" if pad is None else f"{name!r} as padding and as EOS"
        raise ModelError(
            f"the tokenizer has {what}: give it another one, "
            "mht.assets.padding.set_pad(model, tokenizer)"
        )
    return pad


class Responder:
    """Draws responses from a model and turns them into texts.

    Args:
        model: the policy's language model.
        tokenizer: its tokenizer, whose padding token is not an EOS.
        decoding: ``response_tokens``, ``temperature``, ``share_prompts`` and, outside training,
            ``top_k``, ``top_p`` and ``min_p``; see `sample`.
        trunk: the model's frozen layers, where their output is to be kept.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        decoding: Mapping[str, Any],
        trunk: Trunk | None = None,
    ):
        self.model, self.tokenizer, self.trunk = model, tokenizer, trunk
        self.decoding = dict(decoding)
        self.eos_ids = end_tokens(model, tokenizer)
        self.pad_id = pad_token(tokenizer, self.eos_ids)
        self.codec = Codec(tokenizer, self.eos_ids)

    def respond(self, examples: Sequence[Example], generator: Generator) -> Rollout:
        """One response for each example's prompt."""
        return self.draw(*collate_prompts(examples, self.pad_id), generator)

    def draw(self, prompt_ids: Tensor, prompt_mask: Tensor, generator: Generator) -> Rollout:
        """One response for each row of left-padded prompts (B, P) with their mask (True = real).

        Raises:
            DataError: a prompt is empty, or leaves no room for a response in the model's context.
        """
        self.check_lengths(prompt_mask.sum(1))
        device = self.model.device
        return sample(
            self.model,
            prompt_ids.to(device),
            prompt_mask.to(device),
            eos_ids=self.eos_ids,
            pad_id=self.pad_id,
            generator=generator,
            trunk=self.trunk,
            **self.decoding,
        )

    def check_lengths(self, lengths: Tensor) -> None:
        """The prompts' numbers of tokens (B,) are ones that the model can continue.

        Raises:
            DataError: a prompt is empty, or leaves no room for a response.
        """
        shortest, longest = int(lengths.min()), int(lengths.max())
        if not shortest:
            raise DataError(f"prompt {int(lengths.argmin())} of the batch has no token to continue")
        context = policy_model(self.model).context
        wanted = self.decoding["response_tokens"]
        if context is not None and longest + wanted > context:
            raise DataError(
                f"a prompt of {longest} tokens and response_tokens {wanted} do not fit the model's "
                f"context of {context}: lower response_tokens, or shorten the prompts"
            )

    def rebuild(
        self,
        prompt_ids: Tensor,
        response_ids: Tensor,
        prompt_mask: Tensor | None = None,
        response_mask: Tensor | None = None,
    ) -> Rollout:
        """A rollout from token ids alone.

        Args:
            prompt_ids: (B, P) int64, padded on either side.
            response_ids: (B, R) int64, right-padded; what follows a row's first EOS is padding.
            prompt_mask: (B, P) bool, True = a real token; None takes the runs of PAD at a row's
                ends as padding.
            response_mask: (B, R) bool, True = a real token.
        """
        device = self.model.device
        prompts, responses = prompt_ids.to(device), response_ids.to(device)
        real = content_mask(prompts, self.pad_id) if prompt_mask is None else prompt_mask.to(device)
        given = None if response_mask is None else response_mask.to(device)
        mask, ended = response_content(responses, self.pad_id, self.eos_ids, given)
        longest = max(int(mask.sum(1).max()), 1)
        return Rollout(
            *left_padded(prompts, real, self.pad_id),
            responses.masked_fill(~mask, self.pad_id)[:, :longest],
            mask[:, :longest],
            ended,
        )

    def samples(
        self,
        rollout: Rollout,
        examples: Sequence[Example],
        hints: Sequence[int] | None = None,
    ) -> list[Sample]:
        """The texts of a rollout, as `texts` reads its tokens, with the data's own.

        Args:
            rollout: B prompts and responses.
            examples: B rows of the data.
            hints: B numbers of tokens at the prompts' ends that are read as the responses'
                beginnings; None is 0 everywhere.
        """
        prompts, responses = rollout.prompt_tokens, rollout.response_tokens
        if hints is not None:
            ends = [len(prompt) - hint for prompt, hint in zip(prompts, hints, strict=True)]
            responses = [p[end:] + r for p, r, end in zip(prompts, responses, ends, strict=True)]
            prompts = [prompt[:end] for prompt, end in zip(prompts, ends, strict=True)]
        texts = map(self.codec.response_text, prompts, responses)
        return [
            Sample(e.prompt, text, e.target, e.item, e.joiner)
            for e, text in zip(examples, texts, strict=True)
        ]


def trimmed(rollout: Rollout) -> Rollout:
    """Without the columns that are padding in every row; the trunk's output loses the same."""
    left = int(rollout.prompt_mask.any(0).int().argmax())
    longest = max(int(rollout.lengths.max()), 1)
    end = rollout.prompt_ids.shape[1] + longest - 1
    return replace(
        rollout,
        prompt_ids=rollout.prompt_ids[:, left:],
        prompt_mask=rollout.prompt_mask[:, left:],
        response_ids=rollout.response_ids[:, :longest],
        response_mask=rollout.response_mask[:, :longest],
        logprobs=_columns(rollout.logprobs, 0, longest),
        trunk=_columns(rollout.trunk, left, end),
        entropies=_columns(rollout.entropies, 0, longest),
        hidden=_columns(rollout.hidden, 0, longest),
    )


def _columns(values: Tensor | None, start: int, end: int) -> Tensor | None:
    return None if values is None else values[:, start:end]


def widened(rollout: Rollout, *, left: int = 0, right: int = 0, pad_id: int = 0) -> Rollout:
    """The rollout with more padding, which changes nothing.

    Args:
        rollout: any.
        left: columns before the prompts.
        right: columns behind the responses.
        pad_id: the token in them, which no model attends to.
    """

    def widen(values: Tensor | None, left: int, right: int, fill: int = 0) -> Tensor | None:
        if values is None or not left + right:
            return values
        rest = (0, 0) * (values.dim() - 2)
        return functional.pad(values, (*rest, left, right), value=fill)

    return replace(
        rollout,
        prompt_ids=widen(rollout.prompt_ids, left, 0, pad_id),
        prompt_mask=widen(rollout.prompt_mask, left, 0),
        response_ids=widen(rollout.response_ids, 0, right, pad_id),
        response_mask=widen(rollout.response_mask, 0, right),
        trunk=widen(rollout.trunk, left, right),
        **{
            name: widen(getattr(rollout, name), 0, right)
            for name in ("logprobs", "entropies", "hidden")
        },
    )


def concatenated(first: Rollout, second: Rollout, pad_id: int = 0) -> Rollout:
    """The rows of two rollouts of any widths as one, the narrower ones padded.

    What only one of them knows (logprobs, the trunk's output...) the whole does not.
    """
    prompts, responses = (
        [getattr(rollout, name).shape[1] for rollout in (first, second)]
        for name in ("prompt_ids", "response_ids")
    )
    parts = [
        widened(part, left=max(prompts) - p, right=max(responses) - r, pad_id=pad_id)
        for part, p, r in zip((first, second), prompts, responses, strict=True)
    ]
    pairs = {f.name: [getattr(part, f.name) for part in parts] for f in fields(Rollout)}
    known = {k: pair for k, pair in pairs.items() if all(v is not None for v in pair)}
    return Rollout(**{name: torch.cat(pair) for name, pair in known.items()})
