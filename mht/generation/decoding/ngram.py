"""Responses from an n-gram model: a baseline without a network, and a proposal for MCMC."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mht.core.errors import UserError
from mht.core.records import Rollout
from mht.data.examples.example import collate_prompts
from mht.generation.decoding.base import Generated, Prompts
from mht.generation.decoding.ngram_model import NGram
from mht.generation.sampling.draw import draw
from mht.generation.sampling.rollout import Responder
from mht.generation.sampling.seeds import RowSeeds
from mht.models.logprobs import response_logprobs


def ngram_sample(
    model: NGram,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    limits: Tensor,
    *,
    eos_ids: Collection[int],
    pad_id: int,
    numbers: RowSeeds,
    **shape: Any,
) -> Rollout:
    """One response for each prompt; as `decode.sample`, from an n-gram model.

    Args:
        model: the n-gram model.
        prompt_ids: (B, P) int64, left-padded.
        prompt_mask: (B, P) bool, True = a real token.
        limits: (B,) int64, tokens that a response may have.
        eos_ids: tokens that end a response.
        pad_id: fills the responses on the right.
        numbers: a stream for each row.
        **shape: ``temperature`` and truncation of the log-probabilities; see `draw`.
    """
    device = prompt_ids.device
    texts = [ids[keep].tolist() for ids, keep in zip(prompt_ids, prompt_mask, strict=True)]
    starts, stops = [len(text) for text in texts], limits.tolist()
    going = list(range(len(texts)))
    logprobs: list[list[float]] = [[] for _ in texts]
    while going:
        rows = torch.tensor(going, device=device)
        contexts = [model.context(texts[row]) for row in going]
        known = {context: model.probabilities(context) for context in dict.fromkeys(contexts)}
        drawn = draw(
            torch.stack([known[context] for context in contexts]).log().to(device),
            generator=numbers.of(rows),
            **{"temperature": 1.0, **shape},
        )
        steps = zip(going, drawn.tokens.tolist(), drawn.logprobs.tolist(), strict=True)
        going = []
        for row, token, logprob in steps:
            texts[row].append(token)
            logprobs[row].append(logprob)
            if token not in eos_ids and len(texts[row]) - starts[row] < stops[row]:
                going.append(row)
    responses = [text[start:] for text, start in zip(texts, starts, strict=True)]
    lengths = torch.tensor([len(r) for r in responses], device=device)
    return Rollout(
        prompt_ids,
        prompt_mask,
        _filled(responses, pad_id, device),
        torch.arange(int(lengths.max()), device=device)[None] < lengths[:, None],
        torch.tensor([r[-1] in eos_ids for r in responses], device=device),
        logprobs=_filled(logprobs, 0.0, device),
    )


def _filled(rows: Sequence[Sequence[float]], fill: float, device: torch.device) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows], device=device)


@dataclass(frozen=True)
class NGramSampling:
    """Sampling from an n-gram model, with the responder's options; its network is not asked."""

    model: NGram

    def run(self, prompts: Prompts) -> Generated:
        """See `mht.generation.decoding.base.Strategy.run`."""
        responder = prompts.responder
        ids, mask = collate_prompts(prompts.examples, responder.pad_id)
        options = dict(responder.decoding)
        limits = torch.full((len(ids),), options.pop("response_tokens"))
        rollout = ngram_sample(
            self.model,
            ids,
            mask,
            limits,
            eos_ids=responder.eos_ids,
            pad_id=responder.pad_id,
            numbers=RowSeeds(prompts.seeds),
            **options,
        )
        return Generated(responder.samples(rollout, prompts.examples), rollout.response_tokens)


class NGramProposal:
    """An n-gram model that proposes endings for MCMC; `mht.generation.decoding.mcmc.Proposal`.

    Args:
        model: the n-gram model; proposes at temperature 1.
        responder: of the model whose responses are wanted.

    Raises:
        UserError: the responder truncates: its probability of what the n-gram model proposes would
            be that of another distribution.
    """

    def __init__(self, model: NGram, responder: Responder):
        self.model, self.responder = model, responder
        options = responder.decoding
        if options.get("top_k") or options.get("top_p", 1.0) < 1 or options.get("min_p"):
            raise UserError(
                "mcmc: with n-gram proposals the model can't be truncated: leave top_k, top_p and "
                "min_p out"
            )

    def draw(self, ids: Tensor, mask: Tensor, limits: Tensor, numbers: RowSeeds) -> Rollout:
        """See `mht.generation.decoding.mcmc.Proposal.draw`."""
        return ngram_sample(
            self.model,
            ids,
            mask,
            limits,
            eos_ids=self.responder.eos_ids,
            pad_id=self.responder.pad_id,
            numbers=numbers,
        )

    def weight(self, rollout: Rollout) -> Tensor:
        """(B,) ``log p - log q`` of whole responses; see `mcmc.Proposal.weight`."""
        responder = self.responder
        temperature = responder.decoding["temperature"]
        of_model = response_logprobs(responder.model, rollout, temperature).sum(1)
        own = []
        for before, after in zip(rollout.prompt_tokens, rollout.response_tokens, strict=True):
            own.append(sum(self.model.logprobs([*before, *after], len(before))))
        return of_model - torch.tensor(own, device=of_model.device)
