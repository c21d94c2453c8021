"""Writes the pages of the documentation site that are made from the code alone.

docs/conf.py calls `write_pages` before each build. The pages are not kept in git.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PAPER = re.compile(r"arXiv:(\d{4}\.\d{4,5})|doi:(10\.\d+/[\w.()/-]*\w)")


class Citation(NamedTuple):
    """A paper that a docstring names.

    Attributes:
        link: the paper's Markdown link.
        place: the dotted name of the module, class or function.
        does: the first line of its docstring.
    """

    link: str
    place: str
    does: str


def write_pages(docs: Path) -> None:
    """Write each generated page below a folder of docs."""
    pages = {"cli": cli(), "metrics": metrics(), "citations": citations(docs.parent / "mht")}
    for name, text in pages.items():
        page = docs / f"reference/{name}.md"
        if not page.exists() or page.read_text(encoding="utf-8") != text:  # Sphinx looks at times
            page.write_text(text, encoding="utf-8", newline="\n")


def cli() -> str:
    """The command line with every option, as Markdown."""
    import typer
    from typer.cli import get_docs_for_click

    from mht.cli.main import commands

    command = typer.main.get_command(commands)
    return get_docs_for_click(obj=command, ctx=typer.Context(command), name="mht")


def metrics() -> str:
    """The metrics of evaluation with their ranges and meanings, as Markdown."""
    from mht.evaluation.metrics import METRICS

    rows = [
        f"| `{name}` {metric.arrow} | {_range(metric.low, metric.high)} | {_cell(metric.meaning)} |"
        for name, metric in METRICS.items()
    ]
    head = "# Metrics\n\nHigher is better for ↑ and lower for ↓. [Evaluation](evaluation.md)"
    table = ["| metric | range | meaning |", "|---|---|---|", *rows]
    return f"{head} explains\nintervals, tests and the guard.\n\n" + "\n".join(table) + "\n"


def _range(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f"from {low:g}"
    return f"{'' if low is None else f'{low:g} '}to {high:g}"


def citations(library: Path) -> str:
    """Every paper that the code cites, with the code that cites it, as Markdown."""
    listed = sorted({c for file in library.rglob("*.py") for c in cited(file, library.parent)})
    rows = [f"| {c.link} | `{c.place}` | {_cell(c.does)} |" for c in listed]
    head = "# Citations in the code\n\n[Formulas and papers](papers.md) has the formulas.\n"
    return "\n".join([head, "| paper | code | what it is |", "|---|---|---|", *rows, ""])


def cited(file: Path, root: Path) -> Iterator[Citation]:
    """The papers that one file's docstrings name."""
    parts = file.relative_to(root).with_suffix("").parts
    module = ".".join(parts).removesuffix(".__init__")
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node) or ""
            place = module if isinstance(node, ast.Module) else f"{module}.{node.name}"
            for found in PAPER.finditer(text):
                yield Citation(_link(found), place, text.partition("\n")[0])


def _link(found: re.Match[str]) -> str:
    arxiv, doi = found.groups()
    site = f"https://arxiv.org/abs/{arxiv}" if arxiv else f"https://doi.org/{doi}"
    return f"[{found[0]}]({site})"


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")
