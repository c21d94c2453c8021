"""How a PPO iteration of MHT grows with batch, response length and model size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import figures
from bench.peers import ENVIRONMENTS, started
from mht.core.progress import track

BATCHES = (16, 64)
RESPONSES = (12, 48)
DEPTHS = (10,)  # layers; the bundled model has 30


@dataclass(frozen=True)
class Growth:
    """One setting at a time, the others as in the comparison with TRL.

    Attributes:
        settings: of the PPO iteration.
        rounds: of which the medians are taken.
        unfrozen: top layers that train.
    """

    settings: Mapping[str, Any]
    rounds: int = 2
    unfrozen: int = 6

    def measure(self) -> dict[str, Any]:
        """Seconds, tokens per second and memory of each point."""
        start = {**self.settings, "unfrozen": self.unfrozen}
        points: list[tuple[str, int, dict[str, Any]]] = [
            *(("batch", n, start | {"batch": n}) for n in BATCHES),
            *(("response", n, start | {"response": n}) for n in RESPONSES),
            *(("layers", n, start | {"model": shallower(start["model"], n)}) for n in DEPTHS),
        ]
        found: dict[str, Any] = {"as compared": self._point(start)}
        for name, value, settings in track(points, "growth"):
            found.setdefault(name, {})[str(value)] = self._point(settings)
        return {"settings": start, "points": found}

    def _point(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        [side] = started(("", "mht_ppo", settings))
        rounds = [side.once() for _ in range(self.rounds)]
        side.close()
        return figures(rounds)


def shallower(folder: str, layers: int) -> str:
    """A folder with the model's lowest layers alone: the same work per layer, fewer of them."""
    from mht.models.hf.layers import decoder_layers
    from mht.models.loading import load_causal_lm, load_tokenizer

    target = Path(ENVIRONMENTS) / "models" / f"{layers}-layers"
    if not (target / "config.json").exists():
        model = load_causal_lm(folder)
        del decoder_layers(model)[layers:]
        model.config.get_text_config().num_hidden_layers = layers
        model.save_pretrained(target)
        load_tokenizer(folder).save_pretrained(target)
    return str(target)
