"""Validation of a policy in training: the same prompts and seeds each time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mht.data.examples.example import Example
from mht.generation.sampling.answers import generate, target_nll
from mht.generation.sampling.rollout import Responder
from mht.losses import kl_estimate
from mht.models.policy import Policy

if TYPE_CHECKING:
    from mht.rewards import Reward


class Validation:
    """Measures a policy in training on the same prompts and seeds each time.

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
