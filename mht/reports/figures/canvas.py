"""What every figure shares: the paper it is drawn on, its heading, running means."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

from mht.reports.figures.palette import Palette

SMOOTH = 5  # points in the running mean


def heading(figure: Any, title: str, note: str, colours: Palette) -> None:
    """A title on the left and a note on the right."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.text(0.99, 0.985, note, ha="right", va="top", fontsize=8.5, color=colours.faint)


def running_mean(values: list[float]) -> list[float]:
    """Means over the last points; a curve of so few points is shown as it is."""
    if len(values) <= SMOOTH:
        return values
    windows = (values[max(0, i - SMOOTH + 1) : i + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def arms(value: Mapping[str, float]) -> list[list[float]]:
    """Below and above the mean; never negative, whatever rounding did; 0 without an interval."""
    return [
        [max(0.0, value["mean"] - value["low"])],
        [max(0.0, value["high"] - value["mean"])],
    ]


def opened(axis: Any, colours: Palette) -> None:
    """Axes without a box, with a grid behind."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color=colours.rule, linewidth=0.8)
    axis.set_axisbelow(True)


def png(draw: Callable[[Any], None], size: tuple[float, float], colours: Palette) -> bytes:
    """A figure of that size, in inches, as PNG at 150 dots per inch."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "font.family": "DejaVu Sans", "font.size": 9, "text.color": colours.ink,
        "axes.labelcolor": colours.ink, "axes.edgecolor": colours.faint,
        "axes.facecolor": colours.paper, "axes.titlecolor": colours.ink,
        "xtick.color": colours.ink, "ytick.color": colours.ink,
    }  # fmt: skip
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **style}):
        figure = Figure(figsize=size, dpi=150, layout="constrained", facecolor=colours.paper)
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.07)
        draw(figure)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
