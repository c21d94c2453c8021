"""A quick look at a policy in training: the same validation prompts and seeds each time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from mht.core.progress import track
from mht.core.records import Rollout, Sample
from mht.data.examples.example import Example, collate_sft
from mht.generation.rollout import Responder
from mht.losses import IGNORED, kl_estimate
from mht.models.fast.packed import packed_linears
from mht.models.head import token_scores
from mht.models.hf.logits import spread
from mht.models.policy import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mht.rewards import Reward


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
    model: PreTrainedModel, examples: Sequence[Example], pad_id: int, *, batch_size: int
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
        with packed_linears(model):
            scores, _, _ = token_scores(model, learnt, tokens, ids[:, :-1], mask[:, :-1].bool())
        logprobs = spread(scores, learnt)
        nats += (-logprobs.sum(1)).tolist()
        counts += learnt.sum(1).float().tolist()
    return nats, counts


class Validation:
    """A quick look at a policy in training, on the same prompts and seeds each time.

    Args:
        policy: in training.
        responder: draws from it.
        examples: validation examples.
        reward: None leaves the generations out and looks at the SFT loss alone.
        seed: of the responses.
        batch_size: prompts at once.
    """

    def __init__(
        self,
        policy: Policy,
        responder: Responder,
        examples: Sequence[Example],
        reward: Reward | None,
        *,
        seed: int,
        batch_size: int,
    ):
        self.policy, self.responder, self.examples = policy, responder, examples
        self.reward, self.seed, self.batch_size = reward, seed, batch_size

    def figures(self) -> dict[str, float]:
        """Keys ``validation/...``: SFT loss, mean score, KL to the reference, length."""
        nats, counts = target_nll(
            self.policy.model, self.examples, self.responder.pad_id, batch_size=self.batch_size
        )
        stats = {"validation/sft_loss": sum(nats) / sum(counts)}
        return stats if self.reward is None else stats | self._response_figures(self.reward)

    def _response_figures(self, reward: Reward) -> dict[str, float]:
        answered = generate(
            self.responder, self.examples, batch_size=self.batch_size, seed=self.seed
        )
        temperature = self.responder.decoding["temperature"] or 1.0
        scores: list[float] = []
        kl = length = 0.0
        for rollout, samples in answered:
            scores += reward.evaluate(samples, update=False).score
            ref = self.policy.ref_logprobs(rollout, temperature=temperature)
            kl += float((kl_estimate(rollout.logprobs, ref) * rollout.response_mask).sum())
            length += float(rollout.lengths.sum())
        n = len(scores)
        return {
            "validation/score": sum(scores) / n,
            "validation/kl_nats": kl / n,
            "validation/length_tokens": length / n,
        }
