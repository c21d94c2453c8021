"""The PPO step: from a rollout and its scores to updates of the policy and its value head.

Schulman et al. 2017 (arXiv:1707.06347) for language models: Ziegler et al. 2019 (arXiv:1909.08593),
Stiennon et al. 2020 (arXiv:2009.01325). The details follow Huang et al. 2024 (arXiv:2403.17031),
except: the reference shares the policy's frozen layers, and every logprob is of the distribution
that was sampled from, which the first minibatch of each rollout proves.

Past responses may be learnt from once more, with the decoupled objective of Hilton et al. 2021
(arXiv:2110.00641): the ratio that is clipped is to the policy at the start of the update, and a
truncated importance weight makes up for what lies between that one and the one that sampled.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mht.algorithms.ppo.experience import Experience, RunningStd
from mht.algorithms.ppo.figures import rollout_figures
from mht.algorithms.ppo.ratio import RatioCheck
from mht.algorithms.ppo.replay import Replayed, check_past, no_replay, replay_figures, with_past
from mht.algorithms.ppo.updates import Stats, Updates
from mht.config import HybridConfig
from mht.core.errors import RewardError
from mht.core.records import Rollout
from mht.losses import (
    AdaptiveKL,
    FixedKL,
    explained_variance,
    gae,
    importance_weights,
    kl_estimate,
    token_rewards,
    whiten,
)
from mht.models.policy import Policy, TokenScores
from mht.models.references import Items, References
from mht.optim.optimizers import Updater


class PPO:
    """PPO on a policy.

    Args:
        policy: what trains.
        updater: the optimiser shared with the SFT phase.
        config: the algorithm's settings.
        generator: decides the minibatches.
        references: further ones, with penalties of their own.

    Attributes:
        updates: makes the optimiser steps.
        critic: fits the value head where no loss trains it, else None.
        surprises: (B,) mean absolute advantage, before whitening, of each response of the last
            step: how wrong the critic was.
    """

    def __init__(
        self,
        policy: Policy,
        updater: Updater,
        config: HybridConfig,
        generator: torch.Generator,
        references: References | None = None,
    ):
        self.policy, self.config = policy, config
        self.devices = updater.devices
        self.generator, self.references = generator, references
        self.check_ratio = RatioCheck(policy.model.dtype, config.ratio_tolerance, self.devices)
        self.updates = Updates(policy, updater, config, generator, self.check_ratio)
        self.critic = config.value_head.fit(policy.value_head)
        self.running_std = RunningStd()
        self.surprises = torch.zeros(0)
        control = config.kl_control
        self.kl_control: AdaptiveKL | FixedKL = (
            AdaptiveKL(config.kl_coef, control.target, control.horizon)
            if control.type == "adaptive"
            else FixedKL(config.kl_coef)
        )

    def step(
        self,
        rollout: Rollout,
        scores: Sequence[float] | Callable[[], Sequence[float]],
        items: Items | None = None,
        past: Replayed | None = None,
        weights: Tensor | None = None,
    ) -> Stats:
        """Learn from one rollout.

        With several processes each is given the whole rollout, passes its rows through the model,
        and returns the figures of the whole.

        Args:
            rollout: B prompts and responses.
            scores: B numbers, one per response, from a reward; or what gives them, which is called
                once the passes that need no score are done.
            items: each prompt's row of the data, for references that look at it.
            past: responses of earlier policies to learn from too, spread evenly over the
                minibatches. No figure counts them but those of the updates and ``replay/...``.
            weights: (B,) by which each response's policy loss counts; None is 1 everywhere.

        Returns:
            Everything worth a curve, keys ``group/name``.

        Raises:
            RewardError: the scores are not one finite number for each response.
            UserError: a past response has no sampling logprobs.
            RatioError: the first minibatch shows that the logprobs being trained are not those
                of the distribution that was sampled.
        """
        began = time.perf_counter()
        given = partial(_one_for_each, rollout, scores)
        experience, stats = self.assess(rollout, given, items, past)
        experience = experience if weights is None else experience.weighted(weights)
        self.surprises = experience.surprises[: len(rollout)]
        stats["time/assess_s"] = time.perf_counter() - began
        began = time.perf_counter()
        stats |= self.updates(experience, fresh=len(rollout))
        stats["time/update_s"] = time.perf_counter() - began
        self.kl_control.update(stats["kl/k1_nats"], len(rollout))
        return stats

    @torch.no_grad()
    def assess(
        self,
        rollout: Rollout,
        scores: Tensor | Callable[[], Tensor],
        items: Items | None = None,
        past: Replayed | None = None,
    ) -> tuple[Experience, Stats]:
        """Logprobs, values, per-token rewards and advantages of a rollout, with its figures.

        Scores (B,) may come late: all passes of the policy and the references are made before.
        Past responses, if any, are the last rows. Their advantages go through the shift and scale
        that whiten the fresh ones, which they leave as they are.
        """
        kl_coef = self.kl_control.value
        rollout = self._with_trunk(rollout)
        old = self.devices.by_rows(self._old_scores, rollout)
        ref, penalty, of_references = self._references(rollout, old, items)
        scores = scores() if callable(scores) else scores
        raw = self._judged(rollout, old, ref, self._shaped(scores, rollout), penalty)
        mask = rollout.response_mask
        comparable = self.config.responses_per_prompt
        stats = rollout_figures(rollout, old, ref, scores, kl_coef, comparable) | of_references
        variance = explained_variance(raw.old_values, raw.returns, mask)
        stats["value/explained_variance"] = float(variance)
        experience = replace(raw, advantages=self._whitened(raw.advantages, mask))
        if past is not None and len(past.rollout):
            older, weights, figures = self._assess_past(past, (raw.advantages, mask))
            return with_past(
                experience, older, weights, self.config.aggregation.size
            ), stats | figures
        return experience, stats | (no_replay() if self.config.replayed_per_minibatch else {})

    def _with_trunk(self, rollout: Rollout) -> Rollout:
        if rollout.trunk is None and self.policy.trunk.exists:
            return self.devices.by_rows(self.policy.with_trunk, rollout)
        return rollout

    def _references(
        self, rollout: Rollout, old: TokenScores, items: Items | None
    ) -> tuple[Tensor, Tensor | None, Stats]:
        """(B, R) logprobs of the reference, what the further ones take off, and their figures."""
        c = self.config
        ref = self.devices.by_rows(
            lambda r: self.policy.ref_logprobs(r, temperature=c.temperature), rollout
        )
        if self.references is None:
            return ref, None, {}
        penalty, figures = self.references.penalty(
            old.logprobs, rollout, items, temperature=c.temperature, kind=c.kl_estimator
        )
        return ref, penalty, figures

    def _judged(
        self,
        rollout: Rollout,
        old: TokenScores,
        ref: Tensor,
        scores: Tensor,
        penalty: Tensor | None,
        *,
        is_fresh: bool = True,
    ) -> Experience:
        """Rewards from shaped scores (B,), and advantages that are not whitened yet.

        The rollout keeps no hidden states: its figures are found.
        """
        c, mask = self.config, rollout.response_mask
        kl = kl_estimate(old.logprobs, ref, c.kl_estimator)
        rewards = token_rewards(scores, kl, mask, self.kl_control.value)
        if penalty is not None:
            rewards = rewards - penalty
        values = old.values
        compared = rollout.prompts if c.responses_per_prompt > 1 else None
        if self.critic is not None and is_fresh:
            _, followed = gae(rewards, torch.zeros_like(values), mask, gamma=c.gamma, lam=1.0)
            values = self.critic.values(self._hidden(rollout), followed, mask, compared)
        advantages, returns = c.advantage.estimate(rewards, values, mask, compared, c)
        rollout = replace(rollout, hidden=None)
        return Experience(rollout, old.logprobs, values, ref, rewards, advantages, returns)

    def _whitened(
        self, advantages: Tensor, mask: Tensor, like: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        if self.config.advantage.whiten:
            return whiten(advantages, mask, like)
        return torch.where(mask, advantages, 0.0)

    def _hidden(self, rollout: Rollout) -> Tensor:
        if rollout.hidden is not None:
            return rollout.hidden
        return self.devices.by_rows(self.policy.hidden_states, rollout)

    def _assess_past(
        self, past: Replayed, fresh: tuple[Tensor, Tensor]
    ) -> tuple[Experience, Tensor, Stats]:
        """Past responses as the present policy, value head and reference see them.

        Args:
            past: b responses.
            fresh: the fresh rows' advantages, not whitened, and their mask.

        Returns:
            Their experience, (b, R) importance weights, and the figures ``replay/...``.
        """
        check_past(past)
        c, limit = self.config, self.config.memory.replay.max_weight
        rollout = self._with_trunk(past.rollout)
        now = self.devices.by_rows(
            lambda r: self.policy.score(r, temperature=c.temperature), rollout
        )
        scores = torch.tensor(past.scores, dtype=torch.float32)
        shaped = self._shaped(scores, rollout, is_fresh=False)
        ref, penalty, _ = self._references(rollout, now, past.items)
        raw = self._judged(rollout, now, ref, shaped, penalty, is_fresh=False)
        mask, behaviour = rollout.response_mask, rollout.logprobs
        assert behaviour is not None  # as checked
        ratio = importance_weights(now.logprobs, behaviour, mask)
        figures = replay_figures(past, now.logprobs, ratio, limit)
        raw = replace(raw, advantages=self._whitened(raw.advantages, mask, fresh))
        return raw, ratio.clamp(max=limit), figures

    def _old_scores(self, rollout: Rollout) -> TokenScores:
        """What the policy said of the tokens that it sampled.

        In 16 bits this is found out anew as the updates will find it: sampling rounds otherwise,
        and a ratio of 1.1 that rounding made is no change of the policy.
        """
        temperature = self.config.temperature
        if not self.check_ratio.is_rounded:
            return self.policy.sampled_scores(rollout, temperature=temperature)
        old = self.policy.score(rollout, temperature=temperature, with_entropy=True)
        if rollout.logprobs is not None:
            self.check_ratio(old.logprobs, rollout.logprobs, rollout.response_mask, "the rollout")
        return old

    def _shaped(self, scores: Tensor, rollout: Rollout, *, is_fresh: bool = True) -> Tensor:
        """(B,) scores after the penalty for a missing EOS, normalisation, clipping, comparison.

        Past scores were counted when they were fresh: they are divided by the standard deviation as
        it stands, and leave it so.
        """
        c = self.config
        scores = scores.to(rollout.response_ids.device)
        scores = scores - c.missing_eos_penalty * (~rollout.ended).float()
        if c.score_norm:
            std = self.running_std
            scores = scores / (std.update(scores) if is_fresh else std.std)
        scores = scores if c.score_clip is None else scores.clamp(-c.score_clip, c.score_clip)
        if c.responses_per_prompt > 1:
            scores = c.advantage.centred(scores, rollout.prompts)
        return scores

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs beside the policy and the optimiser."""
        return {"kl_coef": self.kl_control.value, "running_std": vars(self.running_std)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.kl_control.value = state["kl_coef"]
        vars(self.running_std).update(state["running_std"])


def _one_for_each(
    rollout: Rollout, scores: Sequence[float] | Callable[[], Sequence[float]]
) -> Tensor:
    """(B,) float32, a finite score for each response."""
    given = scores() if callable(scores) else scores
    if len(given) != len(rollout) or not all(map(math.isfinite, given)):
        raise RewardError(
            f"a PPO step needs a finite score for each of {len(rollout)} responses, got "
            f"{len(given)} scores: {list(given)!r:.80}"
        )
    return torch.tensor(given, dtype=torch.float32)
