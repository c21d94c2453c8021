"""How long prompts and targets are, in tokens: figures, a histogram and its picture."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mht.core.outputs import replaced
from mht.data.examples.example import Example

MOST_BINS = 1000


def length_statistics(examples: Sequence[Example]) -> dict[str, float]:
    """Mean, median, 95th percentile and maximum of the lengths in tokens.

    Returns:
        ``{"prompt_tokens_mean": ..., "target_tokens_p95": ..., ...}``.
    """
    import numpy as np

    figures: dict[str, float] = {}
    for name, lengths in _lengths(examples).items():
        figures[f"{name}_tokens_mean"] = float(np.mean(lengths))
        figures[f"{name}_tokens_median"] = float(np.median(lengths))
        figures[f"{name}_tokens_p95"] = float(np.percentile(lengths, 95))
        figures[f"{name}_tokens_max"] = float(max(lengths))
    return figures


def _lengths(examples: Sequence[Example]) -> dict[str, list[int]]:
    return {
        "prompt": [len(e.prompt_ids) for e in examples],
        "target": [len(e.target_ids) for e in examples],
    }


def histogram(examples: Sequence[Example]) -> list[tuple[int, int, int]]:
    """Rows (length, prompts, targets): how many are that long, or up to the next row's length."""
    lengths = _lengths(examples)
    width = math.ceil((max(map(max, lengths.values())) + 1) / MOST_BINS)
    prompts, targets = (Counter(n // width for n in lengths[k]) for k in ("prompt", "target"))
    last = max([*prompts, *targets])
    return [(bin * width, prompts[bin], targets[bin]) for bin in range(last + 1)]


def plot_lengths(examples: Sequence[Example], folder: str | Path) -> None:
    """Write ``lengths.csv`` (length, prompt, target) and ``lengths.png``."""
    rows = histogram(examples)
    folder = Path(folder)
    with replaced(folder / "lengths.csv") as part, part.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("length", "prompt", "target"), *rows])
    with replaced(folder / "lengths.png") as part:
        _draw(rows, part)


def _draw(rows: Sequence[tuple[int, int, int]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    width = rows[1][0] if len(rows) > 1 else 1
    for column, name in ((1, "prompts"), (2, "targets with their EOS")):
        lengths, counts = [row[0] for row in rows], [row[column] for row in rows]
        axes.bar(lengths, counts, width=width, align="edge", alpha=0.6, label=name)
    axes.set(xlabel="tokens", ylabel="examples", title="Lengths of the prepared examples")
    axes.legend()
    FigureCanvasAgg(figure).print_png(str(path), metadata={"Software": None})
