"""Finds what breaks those rules of plain English that a program can check.

``python -m tools.english [FOLDER or FILE ...]`` lists it; without an argument, everything.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

LONGEST = 25  # words of a sentence
WIDEST = 100  # characters of a line
AVOIDED = re.compile(
    r"\b(?:(?:is|are|was|were|be) (?:said|told|known)|alike|of which|so many|so much as"
    r"|gone? on with|hangs? by a hair|by itself alone|there(?:of|by|in))\b",
    re.IGNORECASE,
)
NO_ZERO = re.compile(r"(?<![\w.)\]/*\\-])[+-]?\.\d")
ENDS = re.compile(r"(?<=[.!?])[\"')\]*]*\s+(?=[\"'(\[*]*[A-Z0-9])")
ABBREVIATED = re.compile(r"\b(?:et al|e\.g|i\.e|vs|cf|approx|sec|fig|no)\.$", re.IGNORECASE)
OPENERS = re.compile(r"(?:This|These|It|Here|There|Function|Method|Class|Helper|Used|Simply)\b")


GENERATED = {"citations.md", "cli.md", "metrics.md"}
DIARY = {"log.md"}  # says what was, in the words of its day


class Problem(NamedTuple):
    """A place whose English breaks a rule."""

    where: str
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.rule}: {self.text}"


def main(arguments: Sequence[str]) -> int:
    """Print the problems; 1 where there is any."""
    places = [Path(name) for name in arguments or ("README.md", "docs", "mht", "stages", "tools")]
    found = [problem for place in places for problem in problems(place)]
    print("\n".join(map(str, found)))
    return int(bool(found))


def problems(place: Path) -> Iterator[Problem]:
    """Problems of a file, or of the pages and modules below a folder."""
    for file in sorted(place.rglob("*.*")) if place.is_dir() else [place]:
        if file.suffix == ".py":
            yield from in_code(file)
        elif file.suffix == ".md" and file.name not in GENERATED | DIARY:
            yield from in_markdown(file)


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph; code counts as one word."""
    text = re.sub(r"(`+)[^`]*\1", "CODE", re.sub(r"\]\([^)]*\)", "]", text))
    found: list[str] = []
    for part in ENDS.split(" ".join(text.split())):
        if found and ABBREVIATED.search(found[-1]):
            found[-1] += f" {part}"
        else:
            found.append(part)
    return found


def words(sentence: str) -> int:
    """How many words a sentence has; a number, sign or symbol alone is none."""
    return sum(bool(re.search(r"[A-Za-z]", word)) for word in sentence.split())


def in_prose(where: str, text: str) -> Iterator[Problem]:
    """Problems of a paragraph."""
    for sentence in sentences(text):
        if (count := words(sentence)) > LONGEST:
            yield Problem(where, f"{count} words", sentence)
        for rule, pattern in {"avoid": AVOIDED, "leading zero": NO_ZERO}.items():
            for found in pattern.finditer(sentence):
                yield Problem(where, f"{rule} {found[0]!r}", sentence)


def in_markdown(file: Path) -> Iterator[Problem]:
    """Problems of a page: its paragraphs, list items and line widths, without code and tables."""
    text = re.sub(r"<!--.*?-->", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    block: list[str] = []
    start, fenced = 1, False
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        fence = re.match(r"\s*(?:```|:::)", line) is not None
        apart = fence or fenced or not line.strip() or re.match(r"\s*(?:\||#)", line)
        if apart or re.match(r"\s*(?:[-*]|\d+\.) ", line):
            yield from in_prose(f"{file}:{start}", " ".join(block))
            block, start = [], number
        if not apart:
            block.append(re.sub(r"^\s*(?:[-*]|\d+\.) ", "", line))
            if len(line) > WIDEST and " " in line.strip()[:WIDEST]:
                yield Problem(f"{file}:{number}", f"{len(line)} characters", line)
        fenced ^= fence


def in_code(file: Path) -> Iterator[Problem]:
    """Problems of a module's docstrings and of the messages that it raises."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(node):
                line = getattr(node, "lineno", 1)
                yield from in_docstring(f"{file}:{line}", text)
        elif isinstance(node, ast.Raise) and node.exc:
            yield from in_prose(f"{file}:{node.lineno}", message(node.exc))


def in_docstring(where: str, text: str) -> Iterator[Problem]:
    """Problems of a docstring: its paragraphs and entries, without doctests and code."""
    first = text.partition("\n")[0]
    if found := OPENERS.match(first):
        yield Problem(where, f"begins with {found[0]!r}", first)
    for paragraph in re.split(r"\n\s*\n", text):
        if ">>>" not in paragraph and "::" not in paragraph:
            entries = re.split(r"\n(?=\s*[\w.*]+(?: \(.*\))?: )|\n(?=\s*[-*] )|:\n", paragraph)
            for entry in entries:
                yield from in_prose(where, entry)


def message(node: ast.AST) -> str:
    """The text of an exception, with each value as one word."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.FormattedValue):
        return "VALUE"
    apart = " " if isinstance(node, ast.Call) else ""
    return apart.join(filter(None, map(message, ast.iter_child_nodes(node))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
