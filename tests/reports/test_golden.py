"""The comparison gives the figures that it gave when one seed and many had a code each.

``golden/project`` is what the stages leave of three training seeds. The files in ``one_seed`` and
``three_seeds`` were made from it by commit 70ca594, the second by `mht seeds` and `mht report`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mht.core.errors import ConfigError
from mht.reports.compare import compare
from mht.reports.guard import Bounds
from mht.reports.write import write_outputs
from tests.support.variants import entries

GOLDEN = Path(__file__).parent / "golden"
STEPS = {"base": 0, "sft_only": 20, "ppo_only": 20, "hybrid": 20}
METRICS = ["reward", "vader", "response_length", "distinct_2", "kl_nats", "perplexity_human"]
BOUNDS = Bounds(["vader", "judge/other"], 0.05, 0.15, 0.10, 0.05, 0.02, 4.0)
CLOSE = {"rel": 1e-4, "abs": 1e-6}


def made(root: Path, seeds: tuple[int, ...]) -> Path:
    """A folder with the benchmark's outputs."""
    found = compare(
        entries(STEPS),
        metrics=METRICS,
        seeds=seeds,
        samples=3,
        guard=BOUNDS,
        reach={"metric": "score", "score": 0.5},
        seed=7,
        root=GOLDEN / "project",
    )
    write_outputs(found, root=root)
    return root


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the first seed."""
    return made(tmp_path_factory.mktemp("one"), (7,))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all seeds."""
    return made(tmp_path_factory.mktemp("three"), (7, 8, 9))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def assert_holds(found: Any, expected: Any, where: str = "") -> None:
    """Everything that was expected is there; what is new may be there too."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert key in found, f"{where}.{key}"
            assert_holds(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, value in enumerate(expected):
            assert_holds(found[i], value, f"{where}[{i}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, **CLOSE), where
    else:
        assert found == expected, where


def table_of(text: str) -> list[list[str]]:
    return [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]


def test_one_seed_has_the_same_differences_and_guard(one):
    differences = read(one / "metrics/benchmark_differences.json")
    assert_holds(differences, read(GOLDEN / "one_seed/benchmark_differences.json"))
    assert_holds(read(one / "reports/benchmark/guard.json"), read(GOLDEN / "one_seed/guard.json"))


def test_one_seed_shows_the_same_samples_and_means(one):
    for name, folder in (("samples.md", "reports/benchmark"), ("benchmark.csv", "metrics")):
        text = (one / folder / name).read_text(encoding="utf-8")
        assert text == (GOLDEN / "one_seed" / name).read_text(encoding="utf-8")
    rows: dict[tuple[str, int], list[str]] = {}
    for row in table_of((one / "reports/benchmark/table.md").read_text(encoding="utf-8")):
        rows.setdefault((row[0], len(row)), row)
    for row in table_of((GOLDEN / "one_seed/table.md").read_text(encoding="utf-8")):
        now = rows[row[0], len(row)]
        if len(row) == len(STEPS) + 3 and "p = " in row[-2]:  # adjusted for more lines than before
            assert now[-2].split(", p")[0] == row[-2].split(", p")[0]
            row, now = [*row[:-2], row[-1]], [*now[:-2], now[-1]]
        assert now == row


def test_seeds_have_the_same_statistics(three):
    summary = read(three / "reports/benchmark/summary.json")
    expected = read(GOLDEN / "three_seeds/summary.json")
    expected.pop("variants")
    for own in expected["budget"].values():
        del own["seconds"], own["cpu_seconds"]
    for own in expected["reach"]["variants"].values():
        del own["seconds"]
    reach = expected["reach"]
    reach["ratios"] = [line for line in reach["ratios"] if line["cost"] != "seconds"]
    assert_holds(summary, expected)
    assert_holds(
        read(three / "reports/benchmark/guard.json"), read(GOLDEN / "three_seeds/guard.json")
    )


def test_seeds_have_the_same_conclusion_and_curves(three):
    table = (three / "reports/benchmark/table.md").read_text(encoding="utf-8")
    for line in (GOLDEN / "three_seeds/report.md").read_text(encoding="utf-8").splitlines():
        assert line.replace("&lt;", "<") in table
    curves = (three / "reports/benchmark/curves.csv").read_text(encoding="utf-8").splitlines()
    expected = (GOLDEN / "three_seeds/curves.csv").read_text(encoding="utf-8").splitlines()
    for now, before in zip(curves, expected, strict=True):
        *names, steps, middle, low, high = now.split(",")
        assert [*names, steps] == before.split(",")[:3]
        if steps != "optimizer_steps":
            values = [float(x) for x in (middle, low, high)]
            assert values == pytest.approx([float(x) for x in before.split(",")[3:]], **CLOSE)


def test_one_seed_and_many_have_the_same_page(one, three):
    pages = [(root / "reports/benchmark/report.html").read_text() for root in (one, three)]
    heads = [[line for line in page.splitlines() if line.startswith("<h2>")] for page in pages]
    assert heads[0] == heads[1] and len(heads[0]) == 9
    assert "32 unseen prompts, 3 training seeds" in pages[1] and "Cohen&#39;s d" in pages[1]
    assert "those of seed 7" in pages[1] and "those of seed" not in pages[0]
    files = [
        sorted(p.name for p in (root / "reports/benchmark").iterdir()) for root in (one, three)
    ]
    assert files[0] == files[1]


def test_costs_may_be_counted_from_a_later_step():
    root = GOLDEN / "project"
    options = {"metrics": ["reward"], "seeds": (7, 8, 9), "resamples": 20, "root": root}
    reach = {"metric": "score", "score": 0.5, "after": 8}
    found = compare(entries(STEPS), reach=reach, **options).reach
    whole = compare(entries(STEPS), reach={**reach, "after": 0}, **options).reach
    assert found["after"] == 8 and "hybrid" in found["variants"]
    times = [each["variants"]["hybrid"]["optimizer_steps"]["mean"] for each in (found, whole)]
    assert times[0] == times[1] - 8, "the SFT stage took eight steps"
    with pytest.raises(ConfigError, match=r"benchmark.reach.after: no look after 20 optimiser"):
        compare(entries(STEPS), reach={**reach, "after": 20}, **options)
