"""Ancestral sampling of a batch of responses, with a cache, temperature and truncation."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mht.core.records import Rollout, distinct
from mht.generation.sampling.draw import Generator, draw
from mht.generation.sampling.seeds import RowSeeds
from mht.models.context import context_window
from mht.models.fast.packed import packed_linears
from mht.models.hf.logits import position_ids
from mht.models.hf.trunk import Trunk

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Steps:
    """Per-token figures of a batch whose rows end at different times."""

    def __init__(self, batch: int, fill: int = 0):
        self.batch, self.fill = batch, fill
        self.columns: list[Tensor] = []

    def add(self, rows: Tensor, values: Tensor) -> None:
        """Values (n, t, ...) of t new positions for the n rows that are still being written."""
        column = values.new_full((self.batch, *values.shape[1:]), self.fill)
        self.columns.append(column.index_copy_(0, rows, values))

    def all(self) -> Tensor | None:
        """(B, positions, ...), filled where a row had ended; None if there were no steps."""
        return torch.cat(self.columns, 1) if self.columns else None


class Writer:
    """The model with its cache, for the rows of a batch that are still being written.

    A model with a limited context has no cache: it reads its window anew for each token.

    Args:
        model: a causal LM.
        prompt_ids: (B, P) int64, left-padded.
        prompt_mask: (B, P) bool, True = a real token.
        tokens: how many will be written behind each prompt at most.

    Attributes:
        rows: their indices in the batch, (n,) int64.
        hidden: (n, 1, H) what the head saw at the last position.
    """

    def __init__(
        self, model: PreTrainedModel, prompt_ids: Tensor, prompt_mask: Tensor, *, tokens: int
    ):
        from mht.models.hf.cache import sized_cache

        self.model, self.limit = model, context_window(model)
        room = prompt_ids.shape[1] + tokens
        self.cache = sized_cache(model, room) if self.limit is None else None
        self.tokens, self.mask = prompt_ids, prompt_mask
        self.positions = position_ids(prompt_mask)
        self.rows = torch.arange(len(prompt_ids), device=prompt_ids.device)

    def next_logits(self) -> Tensor:
        """(n, V) for the next token of each row."""
        tokens, mask, positions = self.tokens, self.mask, self.positions
        if self.limit is not None:
            tokens, mask = tokens[:, -self.limit :], mask[:, -self.limit :]
            positions = position_ids(mask)
        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(self._see)
        try:
            output = self.model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=self.cache is not None,
                logits_to_keep=1,
            )
        finally:
            hook.remove()
        return output.logits[:, -1]

    def _see(self, _: Any, args: tuple[Tensor, ...]) -> None:
        self.hidden = args[0][:, -1:]

    def append(self, tokens: Tensor, going_on: Tensor) -> None:
        """Write (n,) tokens; only the rows where (n,) bool ``going_on`` stay."""
        if not going_on.all():
            stay = going_on.nonzero().squeeze(1)
            self.select(stay)
            self.rows, tokens = self.rows[stay], tokens[stay]
        self.write(tokens)

    def select(self, index: Tensor) -> None:
        """Go on with some of the texts, (m,) int64."""
        if self.cache is None:
            self.tokens = self.tokens[index]
        else:
            self.cache.batch_select_indices(index)
        self.mask, self.positions = self.mask[index], self.positions[index]

    def copy(self, copies: Tensor) -> None:
        """Go on with copies of the texts just read, (B,) int64: which one each row has."""
        self.select(copies)
        self.hidden = self.hidden[copies]
        self.rows = torch.arange(len(copies), device=copies.device)

    def write(self, tokens: Tensor) -> None:
        """Put (n,) tokens behind the texts."""
        fed = tokens[:, None]  # the rest is in the cache, if there is one
        self.tokens = fed if self.cache is not None else torch.cat([self.tokens, fed], 1)
        self.positions = self.positions[:, -1:] + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    *,
    response_tokens: int,
    eos_ids: Collection[int],
    pad_id: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    generator: Generator | None = None,
    trunk: Trunk | None = None,
    limits: Tensor | None = None,
    share_prompts: bool = False,
) -> Rollout:
    """Draw one response for each prompt.

    Rows that have ended leave the batch, so the work shrinks as responses end.

    Args:
        model: a causal LM.
        prompt_ids: (B, P) int64, left-padded.
        prompt_mask: (B, P) bool, True = a real token.
        response_tokens: the length limit.
        eos_ids: tokens that end a response; the EOS belongs to the response.
        pad_id: fills the responses on the right; not an EOS.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: see `truncate_logits`.
        top_p: see `truncate_logits`.
        min_p: see `truncate_logits`.
        generator: the source of randomness, on the model's device. With `RowSeeds` a response does
            not depend on the other rows.
        trunk: the model's frozen layers, if their output is to be kept with the rollout.
        limits: (B,) int64, a length limit of each row's own, none over ``response_tokens``.
        share_prompts: rows with the same prompt have it read once; the numbers are the same but for
            rounding.

    Returns:
        A rollout whose R is the longest response. Its logprobs are those of the distribution at
        this temperature (1 for greedy), before truncation.
    """
    batch, device = prompt_ids.shape[0], prompt_ids.device
    lengths = torch.zeros(batch, dtype=torch.long, device=device)
    ended = torch.zeros(batch, dtype=torch.bool, device=device)
    eos = torch.tensor(sorted(eos_ids), dtype=torch.long, device=device)
    ids, logprobs, entropies = Steps(batch, fill=pad_id), Steps(batch), Steps(batch)
    hidden, frozen = Steps(batch), Steps(batch)
    every = torch.arange(batch, device=device)
    read, copies = distinct(prompt_ids, prompt_mask) if share_prompts else (every, None)
    writer = Writer(model, prompt_ids[read], prompt_mask[read], tokens=response_tokens)
    with packed_linears(model):
        for _ in range(response_tokens):
            logits = writer.next_logits()
            below = trunk.output if trunk is not None and trunk.exists else None
            if copies is not None:
                writer.copy(copies)
                logits, below = logits[copies], below if below is None else below[copies]
                copies = None
            rows = writer.rows
            drawn = draw(
                logits,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                generator=generator.of(rows) if isinstance(generator, RowSeeds) else generator,
            )
            for steps, values in zip((ids, logprobs, entropies), drawn, strict=True):
                steps.add(rows, values[:, None])
            hidden.add(rows, writer.hidden)
            if below is not None:
                frozen.add(rows, below)
            lengths[rows] += 1
            done = torch.isin(drawn.tokens, eos)
            ended[rows[done]] = True
            if limits is not None:
                done |= lengths[rows] >= limits[rows]
            if done.all():
                break
            writer.append(drawn.tokens, ~done)

    response_mask = torch.arange(int(lengths.max()), device=device)[None] < lengths[:, None]
    return Rollout(
        prompt_ids,
        prompt_mask,
        ids.all(),
        response_mask,
        ended,
        logprobs=logprobs.all(),
        trunk=frozen.all(),
        entropies=entropies.all(),
        hidden=hidden.all(),
    )
