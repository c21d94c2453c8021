"""Draws which packages import which, and lists the packages, for docs/explanation/structure.md.

``python -m tools.structure`` writes the picture and the list, ``--check`` only compares. Imports
inside functions and for type checkers count.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence
from html import escape
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from statistics import fmean
from textwrap import fill as fill_text
from typing import TYPE_CHECKING, NamedTuple

from tools.marked import fill, update

if TYPE_CHECKING:
    import networkx

PAGE, PICTURE = Path("docs/explanation/structure.md"), Path("docs/images/structure.svg")
COMMAND = "python -m tools.structure"
BOX, GAP, ROW, WIDTH, HEAD = (116, 30), 28, 62, 760, 7  # in pixels; HEAD is that of an arrow
STYLE = (
    "rect{fill:#eef2f7;stroke:#64748b}path{fill:none;stroke:#64748b}polygon{fill:#64748b}"
    "text{font:14px sans-serif;text-anchor:middle;fill:#0f172a}"
)


Stop = tuple[str, int]  # a package, or a gap that an arrow passes, and its row


class Point(NamedTuple):
    """The middle of a box or gap, in pixels from the top left corner."""

    x: float
    y: float


def main(arguments: Sequence[str]) -> int:
    """Write or check the picture and the list."""
    texts = {
        PICTURE: picture(imports("mht")),
        PAGE: fill(PAGE.read_text(encoding="utf-8"), "packages", packages(Path("mht"))),
    }
    check = "--check" in arguments
    return max(update(path, text, check=check, command=COMMAND) for path, text in texts.items())


def imports(library: str) -> networkx.DiGraph:
    """The packages of a library, each with an edge to each package that it imports."""
    import grimp
    import networkx

    found = grimp.build_graph(library, cache_dir=None)
    inside = sorted(found.find_children(library))
    for package in inside:
        found.squash_module(package)
    edges = {p: sorted(found.find_modules_directly_imported_by(p) - {p}) for p in inside}
    short = {p: p.removeprefix(f"{library}.") for p in inside if not p.endswith("__")}
    graph = networkx.DiGraph()
    graph.add_nodes_from(short.values())
    graph.add_edges_from((short[p], short[q]) for p in short for q in edges[p] if q in short)
    return graph


def picture(graph: networkx.DiGraph) -> str:
    """The packages as SVG; an arrow that others imply is left out.

    Raises:
        networkx.NetworkXError: the packages import each other in a circle.
    """
    import networkx

    reduced = networkx.transitive_reduction(graph)
    rows = {
        n: row for row, names in enumerate(networkx.topological_generations(reduced)) for n in names
    }
    routes = [_route(a, b, rows) for a, b in sorted(reduced.edges)]
    places = layout(sorted(rows.items()), routes)
    height = ROW * (max(rows.values()) + 1)
    arrows = [_arrow([places[stop] for stop in route]) for route in routes]
    boxes = [_box(name, places[name, row]) for name, row in sorted(rows.items())]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}">'
    return "\n".join([head, f"<style>{STYLE}</style>", *arrows, *boxes, "</svg>", ""])


def _route(start: str, end: str, rows: Mapping[str, int]) -> list[Stop]:
    """The package, a gap in each row between, and the package below (Sugiyama et al. 1981)."""
    gaps = [(f"{start}>{end}", row) for row in range(rows[start] + 1, rows[end])]
    return [(start, rows[start]), *gaps, (end, rows[end])]


def layout(packages: Sequence[Stop], routes: Sequence[Sequence[Stop]]) -> dict[Stop, Point]:
    """A place for each package and gap, near what leads to it from above."""
    above: dict[Stop, list[Stop]] = {stop: [] for stop in packages}
    for route in routes:
        for upper, lower in pairwise(route):
            above.setdefault(lower, []).append(upper)
    places: dict[Stop, Point] = {}
    for row, group in groupby(sorted(above, key=lambda stop: stop[1]), key=lambda stop: stop[1]):
        stops = sorted(group, key=lambda s: (fmean([places[a].x for a in above[s]] or [0]), s))
        widths = [GAP if ">" in name else BOX[0] + GAP for name, _ in stops]
        left = (WIDTH - sum(widths)) / 2
        for stop, end, width in zip(stops, accumulate(widths), widths, strict=True):
            places[stop] = Point(left + end - width / 2, ROW * (row + 0.5))
    return places


def _arrow(points: Sequence[Point]) -> str:
    end = points[-1]._replace(y=points[-1].y - BOX[1] / 2 - HEAD)
    path = f"M{points[0].x:g} {points[0].y:g}"
    for a, b in pairwise([points[0], *points[1:-1], end]):
        middle = (a.y + b.y) / 2
        path += f"C{a.x:g} {middle:g} {b.x:g} {middle:g} {b.x:g} {b.y:g}"
    tip = f"{end.x - 4:g},{end.y:g} {end.x + 4:g},{end.y:g} {end.x:g},{end.y + HEAD:g}"
    return f'<path d="{path}"/><polygon points="{tip}"/>'


def _box(name: str, place: Point) -> str:
    x, y = place.x - BOX[0] / 2, place.y - BOX[1] / 2
    rect = f'<rect x="{x:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="5"/>'
    return f'{rect}<text x="{place.x:g}" y="{place.y + 5:g}">{escape(name)}</text>'


def packages(library: Path) -> str:
    """A Markdown list of the packages below a folder, with the first line of each docstring."""
    lines = []
    for init in sorted(library.rglob("__init__.py"), key=lambda file: file.parent.parts):
        parts = init.parent.relative_to(library).parts
        if parts:
            text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
            does = text.partition("\n")[0].replace("``", "`")
            indent = "  " * (len(parts) - 1)
            text = f"{indent}- `{init.parent.as_posix()}/`: {does}"
            lines.append(fill_text(text, 100, subsequent_indent=indent + "  "))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
