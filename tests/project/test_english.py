"""Docs, docstrings and messages keep the rules of plain English that a program can check."""

import ast
import textwrap
from pathlib import Path

import pytest

from tools.english import in_code, in_markdown, in_prose, message, problems, sentences, words

PAGES = [Path("README.md"), *sorted(Path("docs").rglob("*.md"))]
PACKAGES = sorted(p.parent for p in Path("mht").glob("*/__init__.py"))


def rules(found):
    return [problem.rule for problem in found]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_pages_are_plain(page):
    found = list(problems(page))
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("package", [*PACKAGES, Path("stages"), Path("tools")], ids=str)
def test_docstrings_and_messages_are_plain(package):
    found = list(problems(package))
    assert not found, "\n".join(map(str, found))


def test_sentences_end_where_people_end_them():
    text = "See Huang et al. 2024 (sec. 2). `a. B c` has 0.5 of it! [Next](x.md). And *so on.*"
    assert sentences(text) == [
        "See Huang et al. 2024 (sec. 2).",
        "CODE has 0.5 of it!",
        "[Next].",
        "And *so on.*",
    ]


def test_numbers_and_signs_are_no_words():
    assert words("It rose by 0.2 [0.1, 0.3] = x.") == 4


def test_rules_are_found():
    assert rules(in_prose("x", " ".join(["word"] * 25))) == []
    assert rules(in_prose("x", " ".join(["word"] * 26))) == ["26 words"]
    assert rules(in_prose("x", "Both are said.")) == ["avoid 'are said'"]
    assert rules(in_prose("x", "It is .5 of `.5` and -.2, not 1.5 or a.5.")) == [
        "leading zero '.5'",
        "leading zero '-.2'",
    ]


def test_code_and_tables_of_a_page_are_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# T\n\n```\n.5\n```\n\n| .5 |\n\n- All of\n  .5 alike\n\n" + "- " + "w" * 118)
    assert rules(in_markdown(page)) == ["avoid 'alike'", "leading zero '.5'", "120 characters"]


def test_docstrings_and_raised_messages_are_read(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        textwrap.dedent(
            """
            def f():
                '''This is the sum.

                >>> f()
                .5
                '''
                raise ValueError(f"{x}: " "it is known" f" as {y!r}")
            """
        )
    )
    assert rules(in_code(file)) == ["begins with 'This'", "avoid 'is known'"]


def test_messages_have_a_word_for_each_value():
    call = ast.parse('Error(f"a {b} c" "d")').body[0].value
    assert message(call) == "a VALUE cd"
