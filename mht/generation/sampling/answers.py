"""Answers to many prompts, batch after batch, and how a model rates the human answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mht.core.progress import track
from mht.core.records import Rollout
from mht.data.examples.example import Example, collate_sft
from mht.data.text.sample import Sample
from mht.generation.sampling.rollout import Responder
from mht.losses import IGNORED
from mht.models.logprobs import spread, token_scores
from mht.models.readers import policy_model


def generate(
    responder: Responder, examples: Sequence[Example], *, batch_size: int, seed: int
) -> list[tuple[Rollout, list[Sample]]]:
    """Responses to all prompts, batch after batch, each batch seeded by itself."""
    batches = [examples[i : i + batch_size] for i in range(0, len(examples), batch_size)]
    answered = []
    bar = track(batches, "generating")
    for number, batch in enumerate(bar):
        generator = torch.Generator(device=responder.model.device).manual_seed(seed + number)
        rollout = responder.respond(batch, generator)
        answered.append((rollout, responder.samples(rollout, batch)))
        bar.figures(tokens=float(rollout.lengths.float().mean()))
    return answered


@torch.no_grad()
def target_nll(
    model: nn.Module, examples: Sequence[Example], pad_id: int, *, batch_size: int
) -> tuple[list[float], list[float]]:
    """For each example the nats of its target's tokens, given its prompt, and their number."""
    nats: list[float] = []
    counts: list[float] = []
    starts = range(0, len(examples), batch_size)
    for start in track(starts, "human text"):
        batch = collate_sft(examples[start : start + batch_size], pad_id)
        ids, mask, labels = (
            batch[key].to(model.device) for key in ("input_ids", "attention_mask", "labels")
        )
        learnt = labels[:, 1:] != IGNORED
        learnt = learnt[:, int(learnt.any(0).int().argmax()) :]
        tokens = ids[:, -learnt.shape[1] :][learnt]
        with policy_model(model).inference():
            scores, _, _ = token_scores(model, learnt, tokens, ids[:, :-1], mask[:, :-1].bool())
        logprobs = spread(scores, learnt)
        nats += (-logprobs.sum(1)).tolist()
        counts += learnt.sum(1).float().tolist()
    return nats, counts
