"""PPO's updates: the optimiser steps of a rollout, and their losses."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mht.algorithms.batch import Stats
from mht.algorithms.ppo.experience import Experience
from mht.algorithms.ppo.heads import head_terms
from mht.algorithms.ppo.ratio import RatioCheck
from mht.config import HybridConfig
from mht.data.examples.order import by_length
from mht.losses import clip_fraction, kl_estimate
from mht.models.policy import Policy
from mht.optim.updater import Updater


class Updates:
    """All optimiser steps of a rollout.

    Args:
        policy: what trains.
        updater: the optimiser.
        config: the algorithm's settings.
        generator: decides the minibatches.
        check_ratio: compares the logprobs of the first minibatch of each rollout.
    """

    def __init__(
        self,
        policy: Policy,
        updater: Updater,
        config: HybridConfig,
        generator: torch.Generator,
        check_ratio: RatioCheck,
    ):
        self.policy, self.updater, self.config = policy, updater, config
        self.devices = updater.devices
        self.generator, self.check_ratio = generator, check_ratio
        self.heads = head_terms(policy, config)

    def __call__(self, experience: Experience, fresh: int | None = None) -> Stats:
        """Make the optimiser steps; their mean figures.

        If ``target_kl`` stops them early, the schedule moves on over the steps left out, so that it
        ends with the run.

        Args:
            experience: of the rollout; past rows after the first ``fresh``.
            fresh: None is all of them.

        Raises:
            RatioError: the first minibatch's logprobs are not those that were sampled.
        """
        seen: list[Stats] = []
        rows = len(experience.rollout) if fresh is None else fresh
        planned = self.config.epochs * math.ceil(rows / self.config.minibatch_size)
        limit = self.config.target_kl
        for minibatch, whole in self.minibatches(experience, fresh):
            seen.append(self._update(minibatch, whole, is_first=not seen))
            if limit is not None and seen[-1]["policy/approx_kl_nats"] > limit:
                break
        self.updater.skip(planned - len(seen))
        means = {name: sum(s[name] for s in seen) / len(seen) for name in seen[0]}
        means["policy/ratio_max"] = max(s["policy/ratio_max"] for s in seen)
        return means | {"optim/steps": float(len(seen))}

    def _update(self, minibatch: Experience, whole: Tensor, *, is_first: bool) -> Stats:
        """Make the optimiser step of a minibatch; its figures."""
        update = self.updater.step_in_parts(self._losses(minibatch, whole, is_first=is_first))
        parts = update.reports
        stats = {name: sum(s[name] * share for s, share in parts) for name in parts[0][0]}
        stats = self.devices.sums(stats)
        worst = max(s["policy/ratio_max"] for s, _ in parts)
        stats["policy/ratio_max"] = self.devices.largest(worst)
        return stats | update.figures

    def minibatches(
        self, experience: Experience, fresh: int | None = None
    ) -> Iterator[tuple[Experience, Tensor]]:
        """The rows of each minibatch that this process has, and the size of the whole minibatch.

        The past rows, those after the first ``fresh``, are spread over the minibatches.
        """
        mask, rows = experience.rollout.response_mask, len(experience.rollout)
        fresh = rows if fresh is None else fresh
        for _ in range(self.config.epochs):
            order = torch.randperm(fresh, generator=self.generator)
            batches = order.to(mask.device).split(self.config.minibatch_size)
            if rows > fresh:
                past = fresh + torch.randperm(rows - fresh, generator=self.generator)
                parts = past.to(mask.device).tensor_split(len(batches))
                batches = tuple(torch.cat(pair) for pair in zip(batches, parts, strict=True))
            for index in batches:
                own = index[self.devices.rows(len(index))]
                yield experience.rows(own), self.config.aggregation.size(mask[index])

    def _losses(
        self,
        minibatch: Experience,
        whole: Tensor,
        *,
        is_first: bool,
    ) -> Iterator[tuple[Tensor, tuple[Stats, float]]]:
        """The minibatch's loss, microbatch by microbatch, with the figures and share of each.

        A share is of the size of the ``whole`` minibatch. This process may have a part of it.
        """
        size = self.config.microbatch_size or len(minibatch.rollout)
        lengths = minibatch.rollout.attention_mask.sum(1)
        for index in by_length(lengths, size) if size < len(lengths) else [None]:
            m = minibatch if index is None else minibatch.rows(index)
            share = float(self.config.aggregation.size(m.mask) / whole)
            loss, stats = self.loss(m, is_first=is_first)
            yield loss * share, (stats, share)

    def loss(self, m: Experience, *, is_first: bool) -> tuple[Tensor, Stats]:
        """The loss of a microbatch, and its figures."""
        c, mask = self.config, m.mask
        logprobs, entropies, hidden = self.policy.passed(
            m.rollout, temperature=c.temperature, with_entropy=c.ent_coef > 0
        )
        if is_first:
            self.check_ratio(logprobs.detach(), m.old_logprobs, mask)
        pg_losses = c.policy_loss.losses(logprobs, m, c)
        weighted = pg_losses if m.weights is None else pg_losses * m.weights
        pg_loss = c.aggregation.mean(weighted, mask)
        losses = {"policy/loss": pg_loss}
        loss = pg_loss
        for term in self.heads:
            losses[term.figure] = term.head.loss(hidden, m)
            loss = loss + term.coef * losses[term.figure]
        if c.ent_coef:
            loss = loss - c.ent_coef * c.aggregation.mean(entropies, mask)
        figures = {name: float(value.detach()) for name, value in losses.items()}
        return loss, figures | self._ratio_stats(m, logprobs)

    @torch.no_grad()
    def _ratio_stats(self, m: Experience, logprobs: Tensor) -> Stats:
        c, mask = self.config, m.mask
        ratio = torch.exp(logprobs - m.old_logprobs)
        approx_kl = kl_estimate(m.old_logprobs, logprobs, "k3")
        return {
            "policy/approx_kl_nats": float(c.aggregation.mean(approx_kl, mask)),
            "policy/clipfrac": float(
                clip_fraction(
                    logprobs,
                    m.old_logprobs,
                    mask,
                    clip_range=c.clip_range,
                    mean=c.aggregation.mean,
                )
            ),
            "policy/ratio_max": float(torch.where(mask, ratio, 1.0).max()),
        }
