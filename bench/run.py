"""MHT beside its peers, in one run: ``python -m bench.run [row ...]`` writes bench/results.json.

Both sides of a row stay loaded and take turns, so that a noisy machine disturbs both alike; what is
reported is the ratio of each pair of rounds: its median, minimum and maximum. Each peer has an
environment of its own below .mht/bench, made the first time; all use this project's torch.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mht.progress import track

RESULTS = Path("bench/results.json")
ENVIRONMENTS = Path(".mht/bench")
MODEL = "models/base"
STEP = {"model": MODEL, "batch": 32, "prompt": 6, "response": 24}
PPO = {**STEP, "minibatch": 16, "epochs": 4}


@dataclass(frozen=True)
class Row:
    """A comparison.

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


ROWS = {
    "ppo_iteration_frozen": Row(
        "mht_ppo", "trl_ppo", "TRL 0.11.4", "trl0", {**PPO, "unfrozen": 6}, 5
    ),
    "ppo_iteration_full": Row(
        "mht_ppo", "trl_ppo", "TRL 0.11.4", "trl0", {**PPO, "unfrozen": "all"}, 5
    ),
    "rollout": Row("mht_rollout", "hf_rollout", "transformers.generate", "", STEP, 7),
    "sft": Row(
        "mht_sft",
        "trl_sft",
        "TRL 1.16 SFTTrainer",
        "trl",
        {"model": MODEL, "batch": 32, "rows": 128},
        5,
    ),
}


def python_of(environment: str) -> str:
    """The interpreter of a peer's environment, which is made if it is not there or out of date."""
    if not environment:
        return sys.executable
    home = ENVIRONMENTS / environment
    wanted = Path(f"bench/requirements-{environment}.txt")
    stamp = home / "installed.txt"
    python = str((home / "bin" / "python").absolute())
    if not stamp.exists() or stamp.read_text() != wanted.read_text():
        print(f"making the environment {home} ...", file=sys.stderr, flush=True)
        venv.create(home, clear=True, with_pip=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        below = home / "lib" / version / "site-packages" / "project.pth"
        below.write_text(sysconfig.get_paths()["purelib"] + "\n")  # torch, the same for both
        command = [python, "-m", "pip", "install", "-q", "-r", str(wanted)]
        subprocess.run(command, check=True)
        stamp.write_text(wanted.read_text())
    return python


class Side:
    """A worker process with its model loaded."""

    def __init__(self, python: str, side: str, settings: Mapping[str, Any]):
        command = [python, "bench/worker.py", side, json.dumps(settings)]
        quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
        self.name = side
        self.errors = ENVIRONMENTS / f"{side}.log"
        self.errors.parent.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors.open("w"),
            text=True,
            env={**os.environ, **quiet, "PYTHONPATH": os.getcwd()},
        )

    def answer(self) -> dict[str, Any]:
        """The next JSON object it says; what else a library prints is passed over."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError(f"{self.name} has ended: see {self.errors}")

    def once(self) -> dict[str, Any]:
        """One round."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def compare(row: Row) -> dict[str, Any]:
    """Rounds of both sides in turn, first one first, then the other."""
    sides = [
        Side(python, side, row.settings)
        for python, side in (
            (python_of(""), row.ours),
            (python_of(row.environment), row.theirs),
        )
    ]
    for side in sides:
        side.answer()  # loaded and warm
    taken: list[list[dict[str, Any]]] = [[], []]
    for number in track(range(row.rounds), f"{row.ours} and {row.theirs}"):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        for which in order:
            taken[which].append(sides[which].once())
    for side in sides:
        side.close()
    return {
        "peer": row.peer,
        "settings": dict(row.settings),
        "ratio": spread([_rate(a) / _rate(b) for a, b in zip(*taken, strict=True)]),
        "mht": figures(taken[0]),
        "theirs": figures(taken[1]),
    }


def _rate(round_: Mapping[str, Any]) -> float:
    return float(round_["tokens"] / round_["seconds"])


def figures(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Seconds and tokens per second with their spread, and the most memory."""
    return {
        "seconds": spread([r["seconds"] for r in rounds]),
        "tokens_per_s": spread([_rate(r) for r in rounds]),
        "peak_gb": round(max(r["peak_gb"] for r in rounds), 2),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


def memory(results: Mapping[str, Any]) -> dict[str, Any]:
    """Peak memory of the rows that were measured, theirs over ours."""
    found = {
        name: {
            "ratio": round(row["theirs"]["peak_gb"] / row["mht"]["peak_gb"], 2),
            "mht_gb": row["mht"]["peak_gb"],
            "theirs_gb": row["theirs"]["peak_gb"],
        }
        for name, row in results.items()
        if name in ROWS
    }
    ratios = [row["ratio"] for row in found.values()]
    return {"ratio": spread(ratios), "rows": found} if ratios else {}


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


def show(results: Mapping[str, Any]) -> None:
    """The table."""
    table = Table("row", "peer", "ratio", "spread", "MHT", "peer's", "GB: MHT", "peer's")
    for name, row in results.items():
        if name not in ROWS:
            continue
        ours, theirs, ratio = row["mht"], row["theirs"], row["ratio"]
        table.add_row(
            name,
            row["peer"],
            f"{ratio['median']:.2f}x",
            f"{ratio['min']:.2f} to {ratio['max']:.2f}",
            f"{ours['seconds']['median']:.2f} s, {ours['tokens_per_s']['median']:.0f} tokens/s",
            f"{theirs['seconds']['median']:.2f} s, {theirs['tokens_per_s']['median']:.0f} tokens/s",
            f"{ours['peak_gb']:.1f}",
            f"{theirs['peak_gb']:.1f}",
        )
    Console(width=140).print(table)


def main(names: list[str]) -> int:
    """Measure the named rows, or all; the others keep what they had."""
    unknown = sorted(set(names) - set(ROWS))
    if unknown:
        print(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}", file=sys.stderr)
        return 2
    if not Path(MODEL).is_dir():
        print(f"{MODEL} is not there: run dvc repro prepare first", file=sys.stderr)
        return 2
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in names or ROWS:
        results[name] = compare(ROWS[name])
        results["memory"] = memory(results)
        results["machine"] = machine()
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
