"""Where a PPO step of the default run spends its time: ``python -m bench.step_profile``.

Prints the seconds of each phase over some steps, the operators that take most of one more step, and
the rate of a model's matrix products with and without packed weights. Needs the stage `sft`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

import stages  # noqa: F401 - the process as a stage of the pipeline sets it up
from bench.figures import spread
from bench.floor import best
from mht.config import load_config
from mht.data.examples.example import read_examples
from mht.models.fast.packed import pack, packed_linear
from mht.training.hybrid import HybridTrainer

STEPS = 4
PHASES = ("sample_s", "reward_s", "assess_s", "update_s", "step_s")
ROWS = (8, 32, 64, 320)
SHAPES = ((576, 1536), (576, 49152))  # a layer and the head of the bundled model


def phases(trainer: HybridTrainer) -> Table:
    """Median seconds of each phase, the first step left out."""
    steps = [trainer.next_step("ppo") for _ in range(STEPS + 1)][1:]
    table = Table("phase", "median s", "least", "most", title=f"{STEPS} PPO steps")
    for name in PHASES:
        taken = spread([step[f"ppo/time/{name}"] for step in steps])
        table.add_row(name, *(f"{value:.2f}" for value in taken.values()))
    return table


def operators(trainer: HybridTrainer) -> str:
    """The operators that take most of one step."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        trainer.next_step("ppo")
    return profile.key_averages().table(
        sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=36
    )


@torch.no_grad()
def rates() -> Table:
    """GFLOP/s of products with a weight as it is and packed."""
    table = Table("weight", *(f"{rows} rows" for rows in ROWS), title="GFLOP/s: plain, packed")
    for inner, outer in SHAPES:
        weight = torch.randn(outer, inner)
        packed = pack(weight)
        cells = []
        for rows in ROWS:
            x, work = torch.randn(rows, inner), 2e-9 * rows * inner * outer
            plain = work / best(lambda x=x, w=weight: functional.linear(x, w))
            if packed is None:
                cells.append(f"{plain:.0f}, -")
                continue
            fast = work / best(lambda x=x, packed=packed: packed_linear(x, packed))
            cells.append(f"{plain:.0f}, {fast:.0f}")
        table.add_row(f"{inner} x {outer}", *cells)
    return table


def main() -> int:
    """Print all three."""
    if not Path("models/sft").is_dir():
        print("models/sft is not there: run dvc repro sft reward_model first", file=sys.stderr)
        return 2
    config = load_config()
    trainer = HybridTrainer(
        "models/sft",
        train_data=read_examples("data/prepared/train.parquet"),
        config=config.ppo,
        num_layers_unfrozen=config.model.num_layers_unfrozen,
        seed=config.base.seed,
        device=config.base.device,
    )
    console = Console(width=110)
    console.print(phases(trainer))
    print(operators(trainer))
    console.print(rates())
    return 0


if __name__ == "__main__":
    sys.exit(main())
