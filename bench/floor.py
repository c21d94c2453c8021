"""How far each phase of a PPO iteration is from what the machine can do at all.

The floor of a phase is the greater of two times: its multiplications at the rate of a large matrix
product, and the bytes that it has to move at the rate of a large copy, both measured here.
Attention scores, norms and everything else small are left out, so no program can be under it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

CUBE = 2048
COPY = 2**26  # float32 numbers, past any cache
FLOAT32 = 4  # bytes
ADAMW = 7  # numbers moved per parameter: weight, gradient, two moments read; all but one written


@dataclass(frozen=True)
class Work:
    """What a phase has to do: floating-point operations, and bytes to move."""

    flop: float
    bytes: float


@dataclass(frozen=True)
class Model:
    """Sizes that decide the work.

    Attributes:
        layers: transformer blocks.
        layer: weights of the matrix products of one block.
        head: weights of the vocabulary product.
    """

    layers: int
    layer: int
    head: int

    @staticmethod
    def of(folder: str) -> Model:
        """From a folder's config.json; no weights are read."""
        from transformers import AutoConfig, AutoModelForCausalLM

        from mht.models.hf.layers import decoder_layers

        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        layers = decoder_layers(model)
        weights = sum(p.numel() for p in layers[0].parameters() if p.dim() == 2)
        return Model(len(layers), weights, model.get_output_embeddings().weight.numel())


def work(model: Model, s: Mapping[str, Any]) -> dict[str, Work]:
    """The work of each phase of a PPO iteration whose responses all have their full length.

    A product of n rows with a weight of w numbers takes 2nw operations; its gradients 2nw for the
    weight and 2nw for the rows. Only the rows' gradient is wanted of a frozen head, and at best
    none of those that enter the lowest layer that trains.

    >>> found = work(
    ...     Model(layers=3, layer=10, head=100),
    ...     dict(batch=2, prompt=1, response=4, minibatch=1, epochs=1, unfrozen=1),
    ... )
    >>> [found[phase].flop for phase in ("sample", "assess", "update")]
    [2080.0, 1760.0, 3520.0]
    """
    fed = s["batch"] * (s["prompt"] + s["response"] - 1)
    predicted = s["batch"] * s["response"]
    is_full = s["unfrozen"] == "all"
    top = model.layers if is_full else s["unfrozen"]
    once = 2.0 * fed * model.layer
    head = 2.0 * predicted * model.head
    everything = model.layers * model.layer + model.head
    trained = top * model.layer + (model.head if is_full else 0)
    updates = s["epochs"] * s["batch"] // s["minibatch"]
    epoch = once * (3 * top - (0 if is_full else 1)) + head * (3 if is_full else 2)
    return {
        "sample": Work(once * model.layers + head, FLOAT32 * float(s["response"]) * everything),
        "assess": Work(once * top + head, FLOAT32 * float(top * model.layer + model.head)),
        "update": Work(s["epochs"] * epoch, FLOAT32 * float(updates) * ADAMW * trained),
    }


def best(once: Callable[[], object], rounds: int = 7) -> float:
    """The least seconds of one call."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        once()
        taken.append(time.perf_counter() - began)
    return min(taken)


def machine_rates() -> tuple[float, float]:
    """Floating-point operations per second of a large product, and bytes per second of a copy."""
    a, b = torch.randn(CUBE, CUBE), torch.randn(CUBE, CUBE)
    source, target = torch.randn(COPY), torch.empty(COPY)
    flop = 2 * CUBE**3 / best(lambda: torch.mm(a, b))
    moved = 2 * FLOAT32 * COPY / best(lambda: target.copy_(source))
    return flop, moved


def floor(results: Mapping[str, Any]) -> dict[str, Any]:
    """The phases of the rows that have some, each beside its floor; {} where there is no such row.

    Args:
        results: of the rows that were measured.
    """
    rows = {name: row for name, row in results.items() if "phases" in row.get("mht", {})}
    if not rows:
        return {}
    flop, moved = machine_rates()
    rates = {"gflop_per_s": round(flop / 1e9, 1), "gb_per_s": round(moved / 1e9, 1)}
    return {
        "machine": rates,
        "rows": {
            name: _beside(row["mht"]["phases"], row["settings"], flop, moved)
            for name, row in rows.items()
        },
    }


def _beside(
    phases: Mapping[str, Any], settings: Mapping[str, Any], flop: float, moved: float
) -> dict[str, Any]:
    found = {}
    for phase, needed in work(Model.of(settings["model"]), settings).items():
        least = max(needed.flop / flop, needed.bytes / moved)
        found[phase] = {
            "seconds": phases[phase],
            "gflop": round(needed.flop / 1e9, 1),
            "gb": round(needed.bytes / 1e9, 2),
            "floor_s": round(least, 3),
            "times_floor": round(phases[phase]["median"] / least, 2),
        }
    return found
