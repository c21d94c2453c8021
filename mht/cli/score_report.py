"""The outputs of `mht score`: figures of each node, a histogram, extremes, a file."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from mht.cli.score_file import ScoredFile
from mht.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

QUANTILES = {"5%": 0.05, "25%": 0.25, "50%": 0.5, "75%": 0.75, "95%": 0.95}
FORMATS = (".jsonl", ".json", ".csv", ".parquet")
BINS, BAR = 12, 50


def figures(values: Sequence[float]) -> dict[str, float]:
    """Mean, population std, minimum, linearly interpolated quantiles, maximum.

    >>> figures([1.0, 2.0, 3.0, 4.0])["50%"]
    2.5
    """
    ordered = sorted(values)
    found = {"mean": fmean(ordered), "std": pstdev(ordered), "min": ordered[0]}
    found |= {name: _quantile(ordered, share) for name, share in QUANTILES.items()}
    return found | {"max": ordered[-1]}


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def histogram(values: Sequence[float], bins: int = BINS) -> list[tuple[float, float, int]]:
    """Lower end, upper end and count of bins of equal width; one bin if all values are equal.

    >>> histogram([0.0, 0.1, 1.0], bins=2)
    [(0.0, 0.5, 2), (0.5, 1.0, 1)]
    """
    low, high = min(values), max(values)
    width = (high - low) / bins
    if not width:
        return [(low, high, len(values))]
    counts = [0] * bins
    for value in values:
        counts[min(int((value - low) / width), bins - 1)] += 1
    return [(low + i * width, low + (i + 1) * width, n) for i, n in enumerate(counts)]


def nodes(found: ScoredFile) -> dict[str, dict[str, float]]:
    """The figures of each node that has scores."""
    known = {n: [v for v in found.nodes[n] if v is not None] for n in sorted(found.nodes)}
    return {name: figures(values) for name, values in known.items() if values}


def extremes(found: ScoredFile, count: int) -> tuple[list[int], list[int]]:
    """Indices of the lowest and of the highest samples, the most extreme first; none in both."""
    order = sorted(range(len(found.scores)), key=lambda i: found.scores[i])
    return order[:count], order[count:][::-1][:count]


def as_json(found: ScoredFile, count: int) -> str:
    """The figures and the extremes as one JSON object."""
    low, high = extremes(found, count)
    return json.dumps(
        {
            "samples": len(found.samples),
            "score": figures(found.scores),
            "nodes": nodes(found),
            "failed": found.failed,
            "lowest": [_row(found, i) for i in low],
            "highest": [_row(found, i) for i in high],
        },
        indent=1,
    )


def _row(found: ScoredFile, i: int) -> dict[str, Any]:
    sample = found.samples[i]
    texts = {"prompt": sample.prompt, "response": sample.response, "target": sample.target}
    return {"row": i + 1, "score": found.scores[i], **texts}


def show(console: Console, found: ScoredFile, count: int) -> None:
    """Print the table, the histogram and the extremes."""
    console.print(_figures(found))
    for name, n in found.failed.items():
        console.print(f"{name}: {n} of {len(found.samples)} could not be scored (on_error)")
    console.print(f"\nscores of {len(found.samples)} samples")
    for line in _bars(found.scores):
        console.print(line, markup=False, highlight=False)
    for title, places in zip(("lowest", "highest"), extremes(found, count), strict=True):
        if places:
            console.print(_samples(title, found, places))


def _figures(found: ScoredFile) -> Table:
    from rich import box
    from rich.table import Table

    table, of_nodes = Table(box=box.SIMPLE_HEAD), nodes(found)
    table.add_column("node", overflow="fold")
    for name in next(iter(of_nodes.values())):
        table.add_column(name, justify="right", no_wrap=True)
    for name, of_node in of_nodes.items():
        table.add_row(name, *(f"{number:.3g}" for number in of_node.values()))
    return table


def _bars(values: Sequence[float]) -> Iterator[str]:
    bins = histogram(values)
    most = max(n for _, _, n in bins)
    for low, high, n in bins:
        yield f"{low:>10.4g} to {high:<10.4g} {'█' * round(BAR * n / most)} {n}"


def _samples(title: str, found: ScoredFile, places: Sequence[int]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    target = any(found.samples[i].target for i in places)
    names = ["prompt", "response", *(["target"] if target else [])]
    table = Table("row", "score", title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in names:
        table.add_column(name, ratio=1)
    for i in places:
        texts = [Text(shown(getattr(found.samples[i], name))) for name in names]
        table.add_row(str(i + 1), f"{found.scores[i]:.4g}", *texts)
    return table


def shown(text: str, longest: int = 200) -> str:
    r"""A text that a terminal can show, cut.

    >>> shown("a\x1b[31m\nb \ud800")
    'a�[31m b �'
    """
    plain = " ".join(text[: 4 * longest].split())
    plain = "".join("�" if unicodedata.category(c) in ("Cc", "Cs") else c for c in plain)
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def check_out(out: Path, data: Path) -> None:
    """Refuse, before anything is scored, a file that can't be written.

    Raises:
        UserError: an unknown suffix, a missing folder, or the data file itself.
    """
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"--out: {str(out)!r} should end in one of {', '.join(FORMATS)}")
    if not out.parent.is_dir():
        raise UserError(f"--out: there is no folder {str(out.parent)!r}: make it first")
    if out.is_dir() or (out.exists() and data.exists() and out.samefile(data)):
        raise UserError(f"--out: {str(out)!r} is a folder or the data themselves: name another")


def write(found: ScoredFile, out: Path) -> None:
    """Write each sample with its score and the scores of every node.

    Raises:
        UserError: the file can't be written.
    """
    rows = [_whole_row(found, i) for i in range(len(found.samples))]
    try:
        _WRITERS[out.suffix.lower()](rows, out)
    except OSError as error:
        raise UserError(f"--out: {str(out)!r} can't be written: {error}") from None


def _whole_row(found: ScoredFile, i: int) -> dict[str, Any]:
    row = _row(found, i)
    del row["row"]
    of_nodes = {name: values[i] for name, values in found.nodes.items()}
    return row | of_nodes


def _lines(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _list(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _csv(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    with out.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _parquet(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    whole = [{k: _valid(v) for k, v in row.items()} for row in rows]
    parquet.write_table(pyarrow.Table.from_pylist(whole), out)


def _valid(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


_WRITERS = {".jsonl": _lines, ".json": _list, ".csv": _csv, ".parquet": _parquet}
