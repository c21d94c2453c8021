"""Writes a chain of practice as a picture and as tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mht.core.outputs import replaced, write_bytes
from mht.memory.markov.chain import Chain

FIGURE, TRANSITIONS, STATES = (
    "memory_transitions.png",
    "memory_transitions.csv",
    "memory_states.csv",
)
SHOWN = 30  # states in the picture
LONGEST = 32  # letters of a state's name in it


def write_transitions(
    chain: Chain, names: Sequence[str], known: Sequence[int], tables: str | Path, plots: str | Path
) -> None:
    """Write the current state of a chain.

    Args:
        chain: over S states.
        names: of the S states.
        known: number of remembered prompts of each of the S states.
        tables: folder for two files. ``memory_states.csv`` has each state with its remembered
            prompts and its share of the stationary distribution. ``memory_transitions.csv`` has
            the transitions with their probabilities.
        plots: folder for ``memory_transitions.png``.
    """
    tables, plots = Path(tables), Path(plots)
    stationary = chain.stationary()
    states = zip(range(chain.states), names, known, stationary.tolist(), strict=True)
    _write(tables / STATES, ("state", "name", "known_prompts", "stationary"), states)
    matrix = chain.matrix().tocoo()
    moves = zip(matrix.row.tolist(), matrix.col.tolist(), matrix.data.tolist(), strict=True)
    named = ((a, b, p, names[a], names[b]) for a, b, p in moves)
    _write(tables / TRANSITIONS, ("from", "to", "probability", "from_name", "to_name"), named)
    top = np.sort(np.argsort(-stationary, kind="stable")[:SHOWN])
    rows = np.stack([chain.transition_probabilities(state)[top] for state in top.tolist()])
    picture = draw(rows, stationary[top], [names[state] for state in top.tolist()], chain.states)
    write_bytes(plots / FIGURE, picture)


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with replaced(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        for row in rows:
            table.writerow([f"{x:.6g}" if isinstance(x, float) else x for x in row])


def draw(
    matrix: NDArray[np.float64], stationary: NDArray[np.float64], names: Sequence[str], of: int
) -> bytes:
    """A PNG with a heat map of the transition probabilities and the stationary distribution.

    Args:
        matrix: (n, n), from row to column.
        stationary: (n,).
        names: of the n states.
        of: number of states in all.
    """
    from matplotlib.figure import Figure

    count = len(names)
    side = max(2.2, 0.2 * count)
    figure = Figure(figsize=(side + 4.6, side + 1.6), dpi=120, layout="constrained")
    heat, bars = figure.subplots(1, 2, width_ratios=[side, 1.4], sharey=True)
    image = heat.imshow(matrix, cmap="viridis", vmin=0, aspect="auto")
    labels = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    labels = [label.replace("$", r"\$").replace("\n", " ") for label in labels]
    heat.set_yticks(range(count), labels, fontsize=7)
    heat.set_xticks(range(count), [str(i + 1) for i in range(count)], fontsize=6)
    heat.set_xlabel("to (in the rows' order)")
    heat.set_title("Probability of the next state", loc="left", fontsize=10)
    figure.colorbar(image, ax=heat, location="bottom", shrink=0.6, pad=0.02)
    bars.barh(range(count), stationary, color="#0072b2")
    bars.set_title("Stationary", loc="left", fontsize=10)
    bars.spines[["top", "right"]].set_visible(False)
    if count < of:
        what = f"the {count} of {of} states where a walker is most: {stationary.sum():.0%} of moves"
        figure.suptitle(what, x=0.01, ha="left", fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
