"""Seconds of training until held-out prompts are answered positively, from one SFT checkpoint.

Both sides have the same checkpoint, reward, rollouts per iteration, passes over them, learning rate
and KL coefficient: those of params.yaml. Only seconds of training count; looking at the held-out
prompts, which both do after every few iterations, does not.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any

from bench.figures import spread
from bench.peers import Side, started
from mht.config import load_config
from mht.core.progress import track

Looks = list[dict[str, float]]


@dataclass(frozen=True)
class Reach:
    """The comparison.

    Attributes:
        target: mean P(positive) of the held-out continuations that is to be reached.
        iterations: PPO iterations at most: the rollout budget.
        every: iterations between two looks.
        prompts: held-out prompts, from the validation split's first on.
        seeds: one pair of runs each.
    """

    target: float = 0.75
    iterations: int = 12
    every: int = 2
    prompts: int = 128
    seeds: tuple[int, ...] = (0,)
    peer: str = "TRL 0.11.4"

    def measure(self) -> dict[str, Any]:
        """Run the pairs; ratios of the seconds to the target."""
        pairs = [self._pair(seed) for seed in self.seeds]
        found = [[self._reached(looks) for looks in pair] for pair in pairs]
        return {
            "peer": self.peer,
            "settings": asdict(self) | {"seeds": list(self.seeds)},
            "ratio": spread([theirs["seconds"] / ours["seconds"] for ours, theirs in found]),
            "mht": self._figures(found, pairs, 0),
            "theirs": self._figures(found, pairs, 1),
        }

    def _figures(self, found: Any, pairs: Any, side: int) -> dict[str, Any]:
        return {
            "seconds": spread([run[side]["seconds"] for run in found]),
            "reached": all(run[side]["positive"] >= self.target for run in found),
            "curves": [pair[side] for pair in pairs],
        }

    def _reached(self, looks: Looks) -> dict[str, float]:
        """The first look at the target or above; the last one where there is none."""
        return next((look for look in looks if look["positive"] >= self.target), looks[-1])

    def _pair(self, seed: int) -> list[Looks]:
        """The looks of both sides, which take turns until each has reached the target."""
        settings = self._settings(seed)
        sides = started(("", "mht_reach", settings), ("trl0", "trl_reach", settings))
        looks: list[Looks] = [[], []]
        spent = [0.0, 0.0]
        for number in track(range(1, self.iterations + 1), f"to {self.target}, seed {seed}"):
            for which, side in enumerate(sides):
                if looks[which] and looks[which][-1]["positive"] >= self.target:
                    continue
                self._iterate(side, spent, which, looks[which], number)
        for side in sides:
            side.close()
        return looks

    def _iterate(
        self, side: Side, spent: list[float], which: int, looks: Looks, number: int
    ) -> None:
        answer = side.once()
        spent[which] += answer["seconds"]
        if "positive" in answer:
            figures = {key: round(answer[key], 4) for key in ("positive", "length", "kl")}
            looks.append({"iteration": number, "seconds": round(spent[which], 1), **figures})

    def _settings(self, seed: int) -> dict[str, Any]:
        """What both sides are told; all from params.yaml but the schedule."""
        config = load_config()
        names = (
            *("batch_size", "minibatch_size", "epochs", "response_tokens", "temperature", "lr"),
            *("kl_coef", "gamma", "lam", "clip_range", "value_clip_range", "vf_coef"),
            "max_grad_norm",
        )
        return {
            **{name: getattr(config.ppo, name) for name in names},
            "warmup_steps": config.ppo.scheduler.warmup_steps or 0,
            "unfrozen": config.model.num_layers_unfrozen,
            "model": "models/sft",
            "seed": seed,
            "every": self.every,
            "prompts": self.prompts,
            "iterations": self.iterations,
            "python": sys.executable,
        }
