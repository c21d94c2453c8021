"""The PPO step: from a rollout and its scores to updates of the policy and its value head.

Schulman et al. 2017 (arXiv:1707.06347) for language models: Ziegler et al. 2019 (arXiv:1909.08593),
Stiennon et al. 2020 (arXiv:2009.01325). The details follow Huang et al. 2024 (arXiv:2403.17031),
except: the reference shares the policy's frozen layers, and every logprob is of the distribution
that was sampled from, which the first minibatch of each rollout proves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mht.config import HybridConfig
from mht.errors import RewardError
from mht.losses import (
    AdaptiveKL,
    FixedKL,
    clip_fraction,
    explained_variance,
    gae,
    kl_estimate,
    masked_mean,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)
from mht.models.policy import Policy, TokenScores
from mht.models.references import Items, References
from mht.order import by_length
from mht.trainers.experience import Experience, RunningStd
from mht.trainers.optim import Updater
from mht.trainers.ratio import RatioCheck
from mht.types import Rollout

Stats = dict[str, float]


class PPO:
    """PPO on a policy.

    Args:
        policy: what trains.
        updater: the optimiser shared with the SFT phase.
        config: the algorithm's settings.
        generator: decides the minibatches.
        references: further ones, with penalties of their own.

    Attributes:
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
        self.policy, self.updater, self.config = policy, updater, config
        self.devices = updater.devices
        self.generator, self.references = generator, references
        self.check_ratio = RatioCheck(policy.model.dtype, config.ratio_tolerance, self.devices)
        self.running_std = RunningStd()
        self.surprises = torch.zeros(0)
        control = config.kl_control
        self.kl_control: AdaptiveKL | FixedKL = (
            AdaptiveKL(config.kl_coef, control.target, control.horizon)
            if control.type == "adaptive"
            else FixedKL(config.kl_coef)
        )

    def step(self, rollout: Rollout, scores: Sequence[float], items: Items | None = None) -> Stats:
        """Learn from one rollout.

        With several processes each is given the whole rollout, passes its rows through the model,
        and returns the figures of the whole.

        Args:
            rollout: B prompts and responses.
            scores: B numbers, one per response, from a reward.
            items: each prompt's row of the data, for references that look at it.

        Returns:
            Everything worth a curve, keys ``group/name``.

        Raises:
            RewardError: the scores are not one finite number for each response.
            RatioError: the first minibatch shows that the logprobs being trained are not those
                of the distribution that was sampled.
        """
        if len(scores) != len(rollout) or not all(map(math.isfinite, scores)):
            raise RewardError(
                f"a PPO step needs a finite score for each of {len(rollout)} responses, got "
                f"{len(scores)} scores: {list(scores)!r:.80}"
            )
        began = time.perf_counter()
        experience, stats = self.assess(rollout, torch.tensor(scores, dtype=torch.float32), items)
        self.surprises = experience.surprises
        stats["time/assess_s"] = time.perf_counter() - began
        began = time.perf_counter()
        stats |= self._update(experience)
        stats["time/update_s"] = time.perf_counter() - began
        self.kl_control.update(stats["kl/k1_nats"], len(rollout))
        return stats

    @torch.no_grad()
    def assess(
        self, rollout: Rollout, scores: Tensor, items: Items | None = None
    ) -> tuple[Experience, Stats]:
        """Logprobs, values, per-token rewards and advantages of a rollout, with its figures."""
        c, mask = self.config, rollout.response_mask
        each = self.devices.by_rows
        if rollout.trunk is None and self.policy.trunk.exists:
            rollout = each(self.policy.with_trunk, rollout)
        old = each(self._old_scores, rollout)
        ref = each(lambda r: self.policy.ref_logprobs(r, temperature=c.temperature), rollout)
        kl_coef = self.kl_control.value
        kl = kl_estimate(old.logprobs, ref, c.kl_estimator)
        rewards = token_rewards(self._shaped(scores, rollout), kl, mask, kl_coef)
        stats = self._rollout_stats(rollout, old, ref, scores, kl_coef)
        if self.references is not None:
            penalty, figures = self.references.penalty(
                old.logprobs, rollout, items, temperature=c.temperature, kind=c.kl_estimator
            )
            rewards, stats = rewards - penalty, stats | figures
        advantages, returns = gae(rewards, old.values, mask, gamma=c.gamma, lam=c.lam)
        stats["value/explained_variance"] = float(explained_variance(old.values, returns, mask))
        white = whiten(advantages, mask)
        rollout = replace(rollout, hidden=None)
        return Experience(rollout, old.logprobs, old.values, ref, rewards, white, returns), stats

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

    def _shaped(self, scores: Tensor, rollout: Rollout) -> Tensor:
        """(B,) scores after the penalty for a missing EOS, normalisation and clipping."""
        c = self.config
        scores = scores.to(rollout.response_ids.device)
        scores = scores - c.missing_eos_penalty * (~rollout.ended).float()
        if c.score_norm:
            scores = scores / self.running_std.update(scores)
        return scores if c.score_clip is None else scores.clamp(-c.score_clip, c.score_clip)

    def _rollout_stats(
        self, rollout: Rollout, old: TokenScores, ref: Tensor, scores: Tensor, kl_coef: float
    ) -> Stats:
        mask = rollout.response_mask
        per_response = {
            kind: float((kl_estimate(old.logprobs, ref, kind) * mask).sum(1).mean())
            for kind in ("k1", "k3")
        }
        return {
            "score/mean": float(scores.mean()),
            "score/std": float(scores.std(unbiased=False)),
            "kl/k1_nats": per_response["k1"],
            "kl/k3_nats": per_response["k3"],
            "kl/coef": kl_coef,
            "policy/entropy_nats": float(masked_mean(old.entropies, mask)),
            "response/length_tokens": float(rollout.lengths.float().mean()),
            "response/ended_share": float(rollout.ended.float().mean()),
        }

    def _minibatches(self, experience: Experience) -> Iterator[tuple[Experience, Tensor]]:
        """This process's rows of each minibatch, and the response tokens of the whole one."""
        mask = experience.rollout.response_mask
        for _ in range(self.config.epochs):
            order = torch.randperm(len(experience.rollout), generator=self.generator)
            for index in order.to(mask.device).split(self.config.minibatch_size):
                own = index[self.devices.rows(len(index))]
                yield experience.rows(own), mask[index].sum()

    def _update(self, experience: Experience) -> Stats:
        """All optimiser steps of one rollout; their mean figures."""
        seen: list[Stats] = []
        for minibatch, tokens in self._minibatches(experience):
            parts: list[tuple[Stats, float]] = []
            rate = self.updater.lr
            norm = self.updater.step(self._losses(minibatch, tokens, parts, is_first=not seen))
            stats = {name: sum(s[name] * share for s, share in parts) for name in parts[0][0]}
            stats = self.devices.sums(stats)
            worst = max(s["policy/ratio_max"] for s, _ in parts)
            stats["policy/ratio_max"] = self.devices.largest(worst)
            stats |= {"optim/lr": rate, "optim/grad_norm": norm}
            seen.append(stats | self.updater.figures())
            limit = self.config.target_kl
            if limit is not None and stats["policy/approx_kl_nats"] > limit:
                break
        means = {name: sum(s[name] for s in seen) / len(seen) for name in seen[0]}
        means["policy/ratio_max"] = max(s["policy/ratio_max"] for s in seen)
        return means | {"optim/steps": float(len(seen))}

    def _losses(
        self,
        minibatch: Experience,
        tokens: Tensor,
        parts: list[tuple[Stats, float]],
        *,
        is_first: bool,
    ) -> Iterator[Tensor]:
        """The minibatch's loss, microbatch by microbatch; figures and shares go to ``parts``.

        A share is of the whole minibatch's ``tokens``, of which this process may have a part.
        """
        size = self.config.microbatch_size or len(minibatch.rollout)
        lengths = minibatch.rollout.attention_mask.sum(1)
        for index in by_length(lengths, size) if size < len(lengths) else [None]:
            m = minibatch if index is None else minibatch.rows(index)
            share = float(m.rollout.response_mask.sum() / tokens)
            loss, stats = self._loss(m, is_first=is_first)
            parts.append((stats, share))
            yield loss * share

    def _loss(self, m: Experience, *, is_first: bool) -> tuple[Tensor, Stats]:
        c, mask = self.config, m.rollout.response_mask
        new = self.policy.score(m.rollout, temperature=c.temperature, with_entropy=c.ent_coef > 0)
        if is_first:
            self.check_ratio(new.logprobs.detach(), m.old_logprobs, mask)
        pg_loss = policy_loss(
            new.logprobs,
            m.old_logprobs,
            m.advantages,
            mask,
            clip_range=c.clip_range,
            dual_clip=c.dual_clip,
        )
        vf_loss = value_loss(
            new.values, m.old_values, m.returns, mask, clip_range=c.value_clip_range
        )
        loss = pg_loss + c.vf_coef * vf_loss
        if c.ent_coef:
            loss = loss - c.ent_coef * masked_mean(new.entropies, mask)
        return loss, self._update_stats(m, new, pg_loss, vf_loss)

    @torch.no_grad()
    def _update_stats(
        self, m: Experience, new: TokenScores, pg_loss: Tensor, vf_loss: Tensor
    ) -> Stats:
        mask = m.rollout.response_mask
        ratio = torch.exp(new.logprobs - m.old_logprobs)
        approx_kl = kl_estimate(m.old_logprobs, new.logprobs, "k3")
        return {
            "policy/loss": float(pg_loss),
            "value/loss": float(vf_loss),
            "policy/approx_kl_nats": float(masked_mean(approx_kl, mask)),
            "policy/clipfrac": float(
                clip_fraction(new.logprobs, m.old_logprobs, mask, clip_range=self.config.clip_range)
            ),
            "policy/ratio_max": float(torch.where(mask, ratio, 1.0).max()),
        }

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs beside the policy and the optimiser."""
        return {"kl_coef": self.kl_control.value, "running_std": vars(self.running_std)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.kl_control.value = state["kl_coef"]
        vars(self.running_std).update(state["running_std"])
