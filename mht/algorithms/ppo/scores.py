"""What becomes of the reward's scores before they are rewards of tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mht.algorithms.batch import Rollouts
from mht.config import HybridConfig
from mht.core.errors import RewardError
from mht.core.records import Rollout


class RunningStd:
    """Standard deviation of all scores so far (Welford 1962), for ``score_norm``."""

    def __init__(self) -> None:
        self.count, self.mean, self.spread = 0, 0.0, 0.0

    def update(self, scores: Tensor) -> None:
        """Take the scores in."""
        for score in scores.tolist():
            self.count += 1
            before = score - self.mean
            self.mean += before / self.count
            self.spread += before * (score - self.mean)

    @property
    def std(self) -> float:
        """Standard deviation of the scores taken in; 1 while all of them are equal."""
        std = (self.spread / max(self.count - 1, 1)) ** 0.5
        return std if std > 1e-4 else 1.0


class ScoreShaping:
    """Penalty for a missing EOS, normalisation, clipping, and comparison within a prompt.

    Args:
        config: the settings of the cycles.

    Attributes:
        running_std: of the scores of fresh responses, after the penalty.
    """

    def __init__(self, config: HybridConfig):
        self.config, self.running_std = config, RunningStd()

    def update(self, scores: Tensor, rollout: Rollout) -> None:
        """Count the scores (B,) of fresh responses in the running standard deviation."""
        if self.config.score_norm:
            self.running_std.update(self._penalised(scores, rollout))

    def shaped(self, scores: Tensor, rollout: Rollout) -> Tensor:
        """(B,) float32 scores as they become rewards, on the rollout's device."""
        c = self.config
        scores = self._penalised(scores, rollout)
        if c.score_norm:
            scores = scores / self.running_std.std
        scores = scores if c.score_clip is None else scores.clamp(-c.score_clip, c.score_clip)
        if c.responses_per_prompt > 1:
            scores = c.advantage.centred(scores, rollout.prompts)
        return scores

    def _penalised(self, scores: Tensor, rollout: Rollout) -> Tensor:
        scores = scores.to(rollout.response_ids.device)
        return scores - self.config.missing_eos_penalty * (~rollout.ended).float()


def finite_scores(given: Rollouts) -> Tensor:
    """(B,) float32, the reward's score for each response.

    Raises:
        RewardError: the scores are not one finite number for each response.
    """
    scores = given.scores()
    if len(scores) != len(given) or not all(map(math.isfinite, scores)):
        raise RewardError(
            f"a PPO step needs a finite score for each of {len(given)} responses, got "
            f"{len(scores)} scores: {list(scores)!r:.80}"
        )
    return torch.tensor(scores, dtype=torch.float32)
