"""Test files stand alone: what they share lies in tests/support."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILES = sorted(TESTS.rglob("*.py"))


def imported(file: Path) -> set[str]:
    """The modules that a file imports, inside functions as well."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    return names | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}


def of_other_tests(names: set[str]) -> list[str]:
    return sorted(n for n in names if n.startswith("tests") and not n.startswith("tests.support"))


@pytest.mark.parametrize(
    "file", sorted(TESTS.rglob("*.py")), ids=lambda f: str(f.relative_to(TESTS))
)
def test_it_imports_no_other_test(file):
    assert of_other_tests(imported(file)) == []


def test_imports_of_other_tests_are_found(tmp_path):
    file = tmp_path / "test_x.py"
    file.write_text("def f():\n    from tests.a.test_b import c\n    import tests.support.d\n")
    assert of_other_tests(imported(file)) == ["tests.a.test_b"]
