"""From a rollout and its scores to what PPO's updates learn from.

The details follow Huang et al. 2024 (arXiv:2403.17031), with two differences. The reference shares
the policy's frozen layers. Every logprob is of the distribution that was sampled from, which the
first minibatch of each rollout proves.

Past responses may be replayed, with the decoupled objective of Hilton et al. 2021
(arXiv:2110.00641). The clipped ratio is to the policy at the start of the update. A truncated
importance weight corrects for the difference between that policy and the one that sampled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mht.algorithms.base import Trainee
from mht.algorithms.batch import Replayed, Rollouts, Stats
from mht.algorithms.ppo.experience import Experience
from mht.algorithms.ppo.figures import rollout_figures
from mht.algorithms.ppo.ratio import RatioCheck
from mht.algorithms.ppo.replay import check_past, no_replay, replay_figures, with_past
from mht.algorithms.ppo.scores import ScoreShaping, finite_scores
from mht.core.records import Rollout
from mht.losses import (
    explained_variance,
    gae,
    importance_weights,
    kl_estimate,
    token_rewards,
    whiten,
)
from mht.models.policy import TokenScores
from mht.models.references import Items


@dataclass(frozen=True)
class Passed:
    """What the models give for a rollout; everything is (B, R).

    Attributes:
        rollout: with the trunk's output.
        old: the policy's logprobs, entropies and values before the updates.
        ref: logprobs of the reference.
        penalty: what the further references take off the rewards; None without them.
        figures: of the further references.
    """

    rollout: Rollout
    old: TokenScores
    ref: Tensor
    penalty: Tensor | None
    figures: Stats


class Assessment:
    """Logprobs, values, per-token rewards and advantages of rollouts.

    Args:
        trainee: the policy, its references and the settings.
        check_ratio: compares logprobs of the sampling with those of a pass, in 16 bits.

    Attributes:
        critic: fits the value head to each rollout where no loss trains it, else None.
        shaping: of the scores.
    """

    def __init__(self, trainee: Trainee, check_ratio: RatioCheck):
        self.policy, self.config = trainee.policy, trainee.config
        self.devices, self.references = trainee.updater.devices, trainee.references
        self.check_ratio = check_ratio
        self.critic = self.config.value_head.fit(self.policy.value_head)
        self.shaping = ScoreShaping(self.config)

    @torch.no_grad()
    def __call__(self, given: Rollouts, kl_coef: float) -> tuple[Experience, Stats]:
        """What the updates learn from, and the figures of the rollout.

        All passes of the policy and the references come before the scores, which may be late. Past
        responses, if any, are the last rows. Their advantages go through the shift and scale that
        whiten the fresh ones, which they leave as they are.

        Raises:
            RewardError: the scores are not one finite number for each response.
            UserError: a past response has no sampling logprobs.
        """
        passed = self._passes(given.rollout, self._old_scores, given.items)
        rollout, old, mask = passed.rollout, passed.old, given.rollout.response_mask
        scores = finite_scores(given)
        self.shaping.update(scores, rollout)
        rewards = self._rewards(passed, scores, kl_coef)
        values = old.values if self.critic is None else self._fitted_values(rollout, rewards)
        raw = self._experience(passed, rewards, values)
        comparable = self.config.responses_per_prompt
        stats = rollout_figures(rollout, old, passed.ref, scores, kl_coef, comparable)
        stats |= passed.figures
        variance = explained_variance(raw.old_values, raw.returns, mask)
        stats["value/explained_variance"] = float(variance)
        experience = replace(raw, advantages=self._whitened(raw.advantages, mask))
        if given.past is not None and len(given.past.rollout):
            older, weights, figures = self._assess_past(given.past, (raw.advantages, mask), kl_coef)
            both = with_past(experience, older, weights, self.config.aggregation.size)
            return both, stats | figures
        return experience, stats | (no_replay() if self.config.replayed_per_minibatch else {})

    def _passes(
        self, rollout: Rollout, score: Callable[[Rollout], TokenScores], items: Items | None
    ) -> Passed:
        """Pass a rollout through the policy, by ``score``, and through the references."""
        if rollout.trunk is None and self.policy.trunk.exists:
            rollout = self.devices.by_rows(self.policy.with_trunk, rollout)
        old = self.devices.by_rows(score, rollout)
        temperature, kind = self.config.temperature, self.config.kl_estimator
        ref = self.devices.by_rows(
            lambda r: self.policy.ref_logprobs(r, temperature=temperature), rollout
        )
        if self.references is None:
            return Passed(rollout, old, ref, None, {})
        penalty, figures = self.references.penalty(
            old.logprobs, rollout, items, temperature=temperature, kind=kind
        )
        return Passed(rollout, old, ref, penalty, figures)

    def _old_scores(self, rollout: Rollout) -> TokenScores:
        """Scores of the tokens that the policy sampled.

        In 16 bits they are computed anew, as the updates will compute them. Sampling rounds
        differently, and a ratio of 1.1 that comes from rounding is no change of the policy.
        """
        temperature = self.config.temperature
        if not self.check_ratio.is_rounded:
            return self.policy.sampled_scores(rollout, temperature=temperature)
        old = self.policy.score(rollout, temperature=temperature, with_entropy=True)
        if rollout.logprobs is not None:
            self.check_ratio(old.logprobs, rollout.logprobs, rollout.response_mask, "the rollout")
        return old

    def _rewards(self, passed: Passed, scores: Tensor, kl_coef: float) -> Tensor:
        """(B, R) rewards per token: the KL penalties, and the shaped scores (B,) at the ends."""
        shaped = self.shaping.shaped(scores, passed.rollout)
        kl = kl_estimate(passed.old.logprobs, passed.ref, self.config.kl_estimator)
        rewards = token_rewards(shaped, kl, passed.rollout.response_mask, kl_coef)
        return rewards if passed.penalty is None else rewards - passed.penalty

    def _fitted_values(self, rollout: Rollout, rewards: Tensor) -> Tensor:
        """(B, R) values by the critic, which then learns from what followed them."""
        assert self.critic is not None  # as checked
        mask, gamma = rollout.response_mask, self.config.gamma
        _, followed = gae(rewards, torch.zeros_like(rewards), mask, gamma=gamma, lam=1.0)
        hidden = rollout.hidden
        if hidden is None:
            hidden = self.devices.by_rows(self.policy.hidden_states, rollout)
        return self.critic.values(hidden, followed, mask, self._compared(rollout))

    def _compared(self, rollout: Rollout) -> Tensor | None:
        """(B,) the prompts' numbers where a prompt's responses are compared, else None."""
        return rollout.prompts if self.config.responses_per_prompt > 1 else None

    def _experience(self, passed: Passed, rewards: Tensor, values: Tensor) -> Experience:
        """With advantages that are not whitened yet, and without hidden states: they were used."""
        rollout = passed.rollout
        advantages, returns = self.config.advantage.estimate(
            rewards, values, rollout.response_mask, self._compared(rollout), self.config
        )
        rollout = replace(rollout, hidden=None)
        return Experience(
            rollout, passed.old.logprobs, values, passed.ref, rewards, advantages, returns
        )

    def _whitened(
        self, advantages: Tensor, mask: Tensor, like: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        if self.config.advantage.whiten:
            return whiten(advantages, mask, like)
        return torch.where(mask, advantages, 0.0)

    def _assess_past(
        self, past: Replayed, fresh: tuple[Tensor, Tensor], kl_coef: float
    ) -> tuple[Experience, Tensor, Stats]:
        """Past responses as the present policy, value head and reference see them.

        Args:
            past: b responses.
            fresh: the fresh rows' advantages, not whitened, and their mask.
            kl_coef: of the present step.

        Returns:
            Their experience, (b, R) importance weights, and the figures ``replay/...``.
        """
        check_past(past)
        limit, temperature = self.config.memory.replay.max_weight, self.config.temperature
        passed = self._passes(
            past.rollout, lambda r: self.policy.score(r, temperature=temperature), past.items
        )
        rewards = self._rewards(passed, torch.tensor(past.scores, dtype=torch.float32), kl_coef)
        raw = self._experience(passed, rewards, passed.old.values)
        mask, behaviour = past.rollout.response_mask, past.rollout.logprobs
        assert behaviour is not None  # as checked
        ratio = importance_weights(passed.old.logprobs, behaviour, mask)
        figures = replay_figures(past, passed.old.logprobs, ratio, limit)
        raw = replace(raw, advantages=self._whitened(raw.advantages, mask, fresh))
        return raw, ratio.clamp(max=limit), figures
