"""The documentation site builds without a warning, and every page is in its contents."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.site_pages import Citation, cited, metrics, write_pages

DOCS = Path("docs")
PAGES = {file.relative_to(DOCS).with_suffix("") for file in DOCS.rglob("*.md")}
CONTENTS = re.compile(r"^```\{toctree\}\n(?:.*\n)*?```$", re.MULTILINE)


def listed(page: Path) -> set[Path]:
    """The pages that a page's contents lead to."""
    blocks = CONTENTS.findall((DOCS / page).with_suffix(".md").read_text(encoding="utf-8"))
    names = [line for block in blocks for line in block.splitlines() if line[:1].isalpha()]
    return {page.parent / name for name in names}


def test_every_page_is_in_the_contents():
    generated = {Path("reference") / name for name in ("citations", "cli", "metrics")}
    indexes = {page for page in PAGES if page.name == "index"}
    assert set().union(*map(listed, indexes)) == (PAGES | generated) - {Path("index")}


def test_generated_pages_are_written_once(tmp_path):
    (tmp_path / "reference").mkdir()
    (tmp_path / "mht").symlink_to(Path("mht").resolve())
    write_pages(tmp_path)
    page = tmp_path / "reference/cli.md"
    assert "## `mht check`" in page.read_text(encoding="utf-8")
    before = page.stat().st_mtime_ns
    write_pages(tmp_path)
    assert page.stat().st_mtime_ns == before


def test_papers_of_docstrings_are_found(tmp_path):
    file = tmp_path / "mht/losses/__init__.py"
    file.parent.mkdir(parents=True)
    file.write_text('def f():\n    """Half of `x`.\n\n    As in arXiv:1707.06347.\n    """\n')
    link = "[arXiv:1707.06347](https://arxiv.org/abs/1707.06347)"
    assert list(cited(file, tmp_path)) == [Citation(link, "mht.losses.f", "Half of `x`.")]


def test_metrics_have_range_and_direction():
    assert "| `vader` ↑ | -1 to 1 | " in metrics()


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "policy_loss" in (tmp_path / "reference/api.html").read_text(encoding="utf-8")
