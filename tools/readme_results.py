"""Writes the tables of results in README.md and docs/speed.md, and the pictures.

``python -m tools.readme_results`` writes, ``--check`` only compares.
It reads metrics/benchmark.json and metrics/benchmark_differences.json, the training curves (for the
optimiser steps that were really made), the figures of reports/benchmark, and bench/results.json.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mht.evaluation.statistics import UNCLEAR, verdict
from tools.marked import fill, update

README, SPEED = Path("README.md"), Path("docs/speed.md")
IMAGES = Path("docs/images")
BENCH = Path("bench/results.json")
PICTURES = {"metrics.png": "benchmark.png", "training.png": "training.png"}
VARIANTS = {"base": "base", "sft_only": "SFT only", "ppo_only": "PPO only", "hybrid": "hybrid"}
CURVES = {  # whose steps a variant's weights have seen
    "base": (),
    "sft_only": ("sft", "sft_only"),
    "ppo_only": ("ppo_only",),
    "hybrid": ("sft", "hybrid"),
}
BASELINE = "sft_only"  # benchmark.baseline
COMMAND = "python -m tools.readme_results"


class Row(NamedTuple):
    """A metric of the table: its label, and which way is better ("" where neither is)."""

    label: str
    better: str = ""


METRICS = {
    "p_positive": Row("P(positive), the judge", "higher"),
    "vader": Row("VADER, never a reward", "higher"),
    "response_length": Row("Response length, tokens"),
    "distinct_2": Row("Distinct-2", "higher"),
    "kl_nats": Row("KL to the base, nats", "lower"),
    "perplexity_human": Row("Perplexity of human text", "lower"),
}
ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}


def main(arguments: Sequence[str]) -> int:
    """Write or check the pages."""
    check = "--check" in arguments
    try:
        content = table(Path())
    except FileNotFoundError as error:
        print(f"{error.filename}: no such file; run dvc repro first", file=sys.stderr)
        return 2
    if not check:
        copy_pictures()
    text = fill(README.read_text(encoding="utf-8"), "results", content)
    texts = {README: text}
    if BENCH.exists():
        rows = bench_table(json.loads(BENCH.read_text(encoding="utf-8")))
        texts[SPEED] = fill(SPEED.read_text(encoding="utf-8"), "bench", rows)
    status = max(update(page, t, check=check, command=COMMAND) for page, t in texts.items())
    for name in unfilled(text):
        print(f"{README}: still to be written by hand: FIGURE:{name}", file=sys.stderr)
    return status


def table(root: Path) -> str:
    """The results as a Markdown table."""
    found = json.loads((root / "metrics/benchmark.json").read_text(encoding="utf-8"))
    text = (root / "metrics/benchmark_differences.json").read_text(encoding="utf-8")
    differences = json.loads(text)[f"hybrid_minus_{BASELINE}"]
    verdicts = judge({m: differences[m] for m in METRICS if m in differences})
    against = f"hybrid - {VARIANTS[BASELINE]}"
    rows = [["", *VARIANTS.values(), against, "verdict"], ["---", *["---:"] * 5, "---"]]
    steps = [optimizer_steps(root, variant) for variant in VARIANTS]
    if None not in steps:
        rows.append(["optimiser steps", *(str(n) for n in steps), "", ""])
    for metric, (label, better) in METRICS.items():
        if metric in verdicts:
            cells = [number(found[variant][metric]["mean"]) for variant in VARIANTS]
            difference = _difference(differences[metric])
            rows.append([label + ARROWS[better], *cells, difference, verdicts[metric]])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def bench_table(found: Mapping[str, Any]) -> str:
    """What `make bench` measured, as a Markdown table."""
    rows = [
        ["row", "against", "times as fast", "MHT", "peer", "memory, MHT and peer"],
        ["---", "---", "---:", "---:", "---:", "---:"],
    ]
    for name, row in found.items():
        if "peer" not in row:
            continue
        ratio, sides = row["ratio"], (row["mht"], row["theirs"])
        times = f"{number(ratio['median'])} ({number(ratio['min'])} to {number(ratio['max'])})"
        arrived = tuple(side.get("reached", True) for side in sides)  # else seconds of the budget
        if not all(arrived):
            bound = {(True, False): f"at least {number(ratio['min'])}"}
            bound[False, True] = f"at most {number(ratio['max'])}"
            times = bound.get(arrived, "neither got there")
        memory = ", ".join(f"{side['peak_gb']:.1f} GB" for side in sides if "peak_gb" in side)
        speeds = [_speed(side) for side in sides]
        rows.append([f"`{name}`", row["peer"], times, *speeds, memory])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _speed(side: Mapping[str, Any]) -> str:
    seconds = f"{number(side['seconds']['median'])} s"
    if "tokens_per_s" in side:
        return f"{seconds}, {side['tokens_per_s']['median']:.0f} tokens/s"
    return seconds if side["reached"] else f"not in {seconds}"


def judge(differences: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Each metric's verdict: its adjusted p-value must stay below 0.05.

    >>> judge({"vader": {"difference": 0.1, "p_adjusted": 0.01}})
    {'vader': '**better**'}
    """
    words = {
        metric: verdict(METRICS[metric].better, found["difference"], found["p_adjusted"])
        for metric, found in differences.items()
    }
    return {m: word if word == UNCLEAR else f"**{word}**" for m, word in words.items()}


def optimizer_steps(root: Path, variant: str) -> int | None:
    """Optimiser steps behind a variant's weights, from its curves; None where they are absent."""
    total = 0
    for name in CURVES[variant]:
        files = [root / "plots" / name / f"{phase}.csv" for phase in ("sft", "ppo")]
        if not any(file.exists() for file in files):
            return None
        total += sum(_steps(file) for file in files if file.exists())
    return total


def _steps(file: Path) -> int:
    """An SFT step is one optimiser step; a PPO step says how many it made."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows: list[dict[str, Any]] = list(csv.DictReader(lines))
    return round(sum(float(row.get("ppo/optim/steps") or 1) for row in rows))


def number(value: float) -> str:
    """About three digits that matter.

    >>> [number(x) for x in (0.8614, 17.62, 3.456, 1234.5, -0.02, -1e-9)]
    ['0.861', '17.6', '3.46', '1234', '-0.020', '0.000']
    """
    size = abs(value)
    text = f"{value:.{3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0}f}"
    return text if float(text) else text.removeprefix("-")


def _difference(found: Mapping[str, float]) -> str:
    sign = "+" if found["difference"] > 0 else ""
    low, high = number(found["difference_low"]), number(found["difference_high"])
    return f"{sign}{number(found['difference'])} [{low}, {high}]"


def unfilled(text: str) -> list[str]:
    """Names of the figures that still say "to be measured"."""
    return re.findall(r"<!-- FIGURE:(\w+) -->\s*to be measured", text)


def copy_pictures() -> None:
    """Bring the benchmark's figures to where README.md shows them."""
    for source, target in PICTURES.items():
        picture = Path("reports/benchmark", source)
        if picture.exists():
            IMAGES.mkdir(parents=True, exist_ok=True)
            (IMAGES / target).write_bytes(picture.read_bytes())
            print(f"{IMAGES / target}: copied")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
