"""A policy's figures on unseen prompts: what it writes, what rewards and other models say of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mht.core.progress import track
from mht.core.records import Rollout
from mht.data.examples.example import Example
from mht.data.text.sample import Sample
from mht.evaluation.text_metrics import text_metrics
from mht.generation.sampling.answers import generate, target_nll
from mht.generation.sampling.rollout import Responder
from mht.losses import kl_estimate
from mht.models.logprobs import response_logprobs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mht.rewards import Reward

Columns = dict[str, list[float]]


def model_columns(
    base: nn.Module, answered: Iterable[tuple[Rollout, list[Sample]]], temperature: float
) -> Columns:
    """Per response: KL to the base model, its nats under the base model, length, how it ended.

    ``kl_nats`` is the log ratio summed over the response (k1): its mean estimates the KL per
    response.
    """
    columns: Columns = defaultdict(list)
    for rollout, _ in track(list(answered), "base model"):
        under_base = response_logprobs(base, rollout, temperature)
        lengths = rollout.lengths.float().tolist()
        columns["kl_nats"] += _kl_nats(rollout, under_base)
        columns["nll_generated"] += (-under_base.sum(1)).tolist()
        columns["tokens_generated"] += lengths
        columns["response_length"] += lengths
        columns["ended_by_eos"] += rollout.ended.float().tolist()
    return columns


def _kl_nats(rollout: Rollout, logprobs: Tensor) -> list[float]:
    """Each response's KL to a model whose log-probabilities of its tokens are (B, R)."""
    kl = kl_estimate(rollout.logprobs, logprobs) * rollout.response_mask
    return kl.sum(1).tolist()


def start_columns(
    start: nn.Module, answered: Iterable[tuple[Rollout, list[Sample]]], temperature: float
) -> Columns:
    """``kl_to_sft_nats``: as ``kl_nats``, to the SFT model that the cycles began with."""
    found: list[float] = []
    for rollout, _ in track(list(answered), "SFT model"):
        found += _kl_nats(rollout, response_logprobs(start, rollout, temperature))
    return {"kl_to_sft_nats": found}


def reward_columns(
    judges: Mapping[str, Reward],
    reward: Reward | None,
    samples: Sequence[Sample],
    batch_size: int,
) -> Columns:
    """The scores of judges, by column, and every node of the reward tree; state untouched."""
    columns: Columns = defaultdict(list)
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        for name, judge in judges.items():
            columns[name] += judge.evaluate(batch, update=False).score
        if reward is not None:
            for name, values in reward.evaluate(batch, update=False).components.items():
                columns[name.replace(".", "/")] += values
    return columns


def evaluate_policy(
    policy: nn.Module,
    base: nn.Module,
    responder: Responder,
    examples: Sequence[Example],
    *,
    judge: Reward,
    reward: Reward | None,
    batch_size: int,
    seed: int,
    bertscore_model: str | None,
    bertscore_layer: int,
    start: nn.Module | None = None,
    judges: Mapping[str, Reward] | None = None,
    rounds: int = 1,
) -> tuple[list[Sample], Columns]:
    """Everything that is measured of a policy, one value per sample, round after round.

    Args:
        policy: the model that writes.
        base: the model that the KL and the perplexity of the generations are taken against.
        responder: draws from ``policy``.
        examples: unseen prompts with their targets.
        judge: gives ``p_positive``.
        reward: its nodes are measured too.
        batch_size: prompts at once.
        seed: of the responses.
        bertscore_model: encoder for BERTScore, or None.
        bertscore_layer: its layer.
        start: the SFT model that the policy's cycles began with, for the KL to it.
        judges: rewards that nobody was trained on, by name.
        rounds: how often all prompts are answered. A reward that compares a batch's responses never
            sees two to one prompt.
    """
    temperature = responder.decoding["temperature"] or 1.0
    named = {f"judge/{name}": other for name, other in (judges or {}).items()}
    nats, tokens = target_nll(policy, examples, responder.pad_id, batch_size=batch_size)
    samples: list[Sample] = []
    columns: Columns = {}
    for number in range(rounds):
        first = seed + number * math.ceil(len(examples) / batch_size)
        answered = generate(responder, examples, batch_size=batch_size, seed=first)
        drawn = [sample for _, batch in answered for sample in batch]
        found = model_columns(base, answered, temperature)
        found["nll_human"], found["tokens_human"] = nats, tokens
        found |= reward_columns({"p_positive": judge, **named}, reward, drawn, batch_size)
        if start is not None:
            found |= start_columns(start, answered, temperature)
        samples += drawn
        for name, values in found.items():
            columns.setdefault(name, []).extend(values)
    columns |= text_metrics(
        samples, bertscore_model=bertscore_model, bertscore_layer=bertscore_layer
    )
    return samples, columns
