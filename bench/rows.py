"""What is compared: the sides of each row, their settings, and how they are measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bench.figures import figures, rate, spread
from bench.growth import Growth
from bench.peers import started
from bench.reach import Reach
from bench.rewards import Rewards
from mht.core.progress import track

MODEL = "models/base"
STEP = {"model": MODEL, "batch": 32, "prompt": 6, "response": 24}
PPO = {**STEP, "minibatch": 16, "epochs": 4}
SFT = {"model": MODEL, "batch": 32, "rows": 64}


class Measured(Protocol):
    """Anything that `measure` says something about."""

    def measure(self) -> dict[str, Any]:
        """What goes into the results."""


@dataclass(frozen=True)
class Turns:
    """Two sides that take turns at the same round.

    Attributes:
        ours: the module in bench/sides.
        theirs: the peer's.
        peer: what the peer is called.
        environment: of the peer; "" is this project's.
        settings: the same for both.
        rounds: pairs of rounds.
    """

    ours: str
    theirs: str
    peer: str
    environment: str
    settings: Mapping[str, Any]
    rounds: int

    def measure(self) -> dict[str, Any]:
        """Rounds of both sides in turn, first one first, then the other."""
        sides = started(
            ("", self.ours, self.settings), (self.environment, self.theirs, self.settings)
        )
        taken: list[list[dict[str, Any]]] = [[], []]
        for number in track(range(self.rounds), f"{self.ours} and {self.theirs}"):
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                taken[which].append(sides[which].once())
        for side in sides:
            side.close()
        return {
            "peer": self.peer,
            "settings": dict(self.settings),
            "ratio": spread([rate(a) / rate(b) for a, b in zip(*taken, strict=True)]),
            "mht": figures(taken[0]),
            "theirs": figures(taken[1]),
        }


def _trl(unfrozen: int | str) -> Turns:
    return Turns("mht_ppo", "trl_ppo", "TRL 0.11.4", "trl0", {**PPO, "unfrozen": unfrozen}, 5)


ROWS: dict[str, Measured] = {
    "ppo_iteration_frozen": _trl(6),
    "ppo_iteration_full": _trl("all"),
    "rollout": Turns("mht_rollout", "hf_rollout", "transformers.generate", "", STEP, 7),
    "sft": Turns("mht_sft", "trl_sft", "TRL 1.16 SFTTrainer", "", SFT, 3),
    "time_to_reward": Reach(),
    "growth": Growth(PPO),
    "rewards": Rewards(),
}
