"""MHT beside its peers, in one run: ``python -m bench.run [row ...]`` writes bench/results.json.

Both sides of a row stay loaded and take turns, so that a noisy machine disturbs both alike; what is
reported is the ratio of each pair of rounds: its median, minimum and maximum. TRL 0.11.4
has an environment of its own below .mht/bench, made the first time; all use this project's torch.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figures import memory
from bench.floor import floor
from bench.rows import ROWS

RESULTS = Path("bench/results.json")
NEEDED = ("models/base", "models/sft", "models/reward_model", "data/prepared")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    import torch

    return {
        "cores": os.cpu_count(),
        "kind": platform.machine(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def ratios(results: Mapping[str, Any]) -> Table:
    """The comparisons."""
    table = Table("row", "peer", "ratio", "spread", "MHT", "peer's", "GB: MHT", "peer's")
    for name, row in results.items():
        if "theirs" not in row:
            continue
        ours, theirs, ratio = row["mht"], row["theirs"], row["ratio"]
        table.add_row(
            *(name, row["peer"], f"{ratio['median']:.2f}x" if _arrived(ours) else "-"),
            f"{ratio['min']:.2f} to {ratio['max']:.2f}",
            *(_speed(ours), _speed(theirs), _gb(ours), _gb(theirs)),
        )
    return table


def _arrived(side: Mapping[str, Any]) -> bool:
    """Whether it got to what was to be reached, where that is the question."""
    return bool(side.get("reached", True))


def _speed(side: Mapping[str, Any]) -> str:
    text = f"{side['seconds']['median']:.1f} s"
    if "tokens_per_s" in side:
        text += f", {side['tokens_per_s']['median']:.0f} tokens/s"
    return text if _arrived(side) else f"not in {text}"


def _gb(side: Mapping[str, Any]) -> str:
    return f"{side['peak_gb']:.1f}" if "peak_gb" in side else ""


def floors(found: Mapping[str, Any]) -> Table:
    """Each phase beside its floor."""
    rates = found["machine"]
    title = f"floor at {rates['gflop_per_s']:.0f} GFLOP/s and {rates['gb_per_s']:.0f} GB/s"
    table = Table("", "phase", "seconds", "GFLOP", "GB", "floor, s", "times floor", title=title)
    for name, phases in found["rows"].items():
        for phase, f in phases.items():
            cells = (f["seconds"]["median"], f["gflop"], f["gb"], f["floor_s"], f["times_floor"])
            table.add_row(name, phase, *(f"{cell:.4g}" for cell in cells))
    return table


def growths(growth: Mapping[str, Any]) -> Table:
    """A PPO iteration at other sizes."""
    table = Table("", "", "seconds", "tokens/s", "GB", title="growth of a PPO iteration")
    points = dict(growth["points"])
    points = {"": {"as compared": points.pop("as compared")}, **points}
    for name, values in points.items():
        for value, f in values.items():
            cells = (f["seconds"]["median"], f["tokens_per_s"]["median"], f["peak_gb"])
            table.add_row(name, value, *(f"{cell:.3g}" for cell in cells))
    return table


def rewards(found: Mapping[str, Any]) -> Table:
    """Texts per second of each type of reward, and the tree's share."""
    tree = found["tree"]
    title = f"rewards: a tree of {tree['components']} adds {tree['overhead_ms']['median']:.2f} ms"
    if "share_of_ppo_step" in tree:
        title += f", {tree['share_of_ppo_step']:.2%} of a PPO step"
    batch = f"texts/s, {found['texts']} together"
    table = Table("type", batch, "one at a time", "ratio", "model or note", title=title)
    for name, figures in found["types"].items():
        if "skipped" in figures:
            table.add_row(name, "", "", "", figures["skipped"])
            continue
        cells = (figures[key]["median"] for key in ("together_per_s", "alone_per_s", "ratio"))
        table.add_row(name, *(f"{cell:.3g}" for cell in cells), ", ".join(figures["models"]))
    return table


def show(results: Mapping[str, Any]) -> None:
    """The tables."""
    console = Console(width=140)
    console.print(ratios(results))
    if results.get("floor"):
        console.print(floors(results["floor"]))
    if "growth" in results:
        console.print(growths(results["growth"]))
    if "rewards" in results:
        console.print(rewards(results["rewards"]))


def main(names: list[str]) -> int:
    """Measure the named rows, or all; the others keep what they had."""
    unknown = sorted(set(names) - set(ROWS))
    if unknown:
        print(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}", file=sys.stderr)
        return 2
    missing = [path for path in NEEDED if not Path(path).is_dir()]
    if missing:
        print(f"{missing[0]} is not there: run dvc repro sft first", file=sys.stderr)
        return 2
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in names or ROWS:
        results[name] = ROWS[name].measure()
        results |= {"memory": memory(results), "floor": floor(results), "machine": machine()}
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
