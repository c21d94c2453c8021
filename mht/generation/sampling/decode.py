"""Ancestral sampling of a batch of responses, with a cache, temperature and truncation."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from mht.core.records import Rollout, distinct
from mht.generation.sampling.draw import Generator, draw
from mht.generation.sampling.seeds import RowSeeds
from mht.models.base import Decoding
from mht.models.readers import policy_model
from mht.models.trunk import Trunk


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


def still_writing(
    texts: Decoding, rows: Tensor, tokens: Tensor, going_on: Tensor
) -> tuple[Tensor, Tensor]:
    """Drop the texts that have ended; the rows (n,) and tokens (n,) of those that go on."""
    if going_on.all():
        return rows, tokens
    stay = going_on.nonzero().squeeze(1)
    texts.select(stay)
    return rows[stay], tokens[stay]


@torch.no_grad()
def sample(
    model: nn.Module,
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
        model: a language model; see `policy_model`.
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
    reader, rows = policy_model(model), every
    texts = reader.start(prompt_ids.shape[1] + response_tokens)
    with reader.inference():
        seen = texts.step(prompt_ids[read], prompt_mask[read])
        for number in range(1, response_tokens + 1):
            below = trunk.output if trunk is not None and trunk.exists else None
            if copies is not None:
                texts.select(copies)
                seen, below = seen.rows(copies), below if below is None else below[copies]
                copies = None
            drawn = draw(
                seen.logits,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                generator=generator.of(rows) if isinstance(generator, RowSeeds) else generator,
            )
            for steps, values in zip((ids, logprobs, entropies), drawn, strict=True):
                steps.add(rows, values[:, None])
            hidden.add(rows, seen.hidden)
            if below is not None:
                frozen.add(rows, below)
            lengths[rows] += 1
            done = torch.isin(drawn.tokens, eos)
            ended[rows[done]] = True
            if limits is not None:
                done |= lengths[rows] >= limits[rows]
            if done.all() or number == response_tokens:
                break
            rows, tokens = still_writing(texts, rows, drawn.tokens, ~done)
            seen = texts.step(tokens[:, None])

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
