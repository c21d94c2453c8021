"""README.md: its results are those that were measured, its file list that of the repository."""

import csv
import json
import subprocess
from pathlib import Path

import pytest

from mht.evaluation.metrics import METRICS as KNOWN
from tools import readme_results
from tools.marked import BlockError, fill
from tools.readme_results import METRICS, main, optimizer_steps, table, unfilled

README = Path("README.md")
RESULTS = ["metrics/benchmark.json", "metrics/benchmark_differences.json"]
MEANS = {"base": 0.5, "sft_only": 0.55, "ppo_only": 0.7, "hybrid": 0.75}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def difference(value: float, p: float) -> dict[str, float]:
    spread = {"difference_low": value - 0.1, "difference_high": value + 0.1}
    return {"difference": value, "p_adjusted": p, **spread}


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A repository with a README and results, none of them real."""
    summary = {
        variant: {m: {"mean": mean, "low": mean - 0.1, "high": mean + 0.1} for m in METRICS}
        for variant, mean in MEANS.items()
    }
    p_values = dict(zip(METRICS, (0.001, 0.06, 0.001, 0.9, 0.001, 0.3), strict=True))
    differences = {m: difference(0.2, p) for m, p in p_values.items()}
    write(tmp_path / RESULTS[0], json.dumps(summary))
    write(
        tmp_path / RESULTS[1],
        json.dumps({"hybrid_minus_ppo_only": {}, "hybrid_minus_sft_only": differences}),
    )
    write(tmp_path / "README.md", "before <!-- results:begin -->x<!-- results:end --> after")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_steps(root: Path, name: str, phase: str, rows: list[dict[str, float]]) -> None:
    file = root / "plots" / name / f"{phase}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as out:
        lines = csv.DictWriter(out, rows[0].keys())
        lines.writeheader()
        lines.writerows(rows)


def test_the_bench_is_on_its_page(measured):
    page = Path("docs/speed.md")
    write(page, "<!-- bench:begin --><!-- bench:end -->")
    side = {"seconds": {"median": 2.5}, "tokens_per_s": {"median": 321.4}, "peak_gb": 2.04}
    late = {"seconds": {"median": 250.0}, "reached": False}
    row = {"peer": "P 1", "ratio": {"median": 9.876, "min": 8.0, "max": 11.0}}
    found = {
        "machine": {"cores": 2},
        "rollout": row | {"mht": side, "theirs": side},
        "time_to_reward": row | {"mht": late | {"reached": True}, "theirs": late},
    }
    write(Path("bench/results.json"), json.dumps(found))
    assert main([]) == 0
    lines = {line.split("`")[1]: line for line in page.read_text().splitlines() if "`" in line}
    side = "2.50 s, 321 tokens/s"
    start = "| P 1 | 9.88 (8.00 to 11.0) |"
    assert lines["rollout"] == f"| `rollout` {start} {side} | {side} | 2.0 GB, 2.0 GB |"
    reach = "| `time_to_reward` | P 1 | at least 8.00 | 250 s | not in 250 s |  |"
    assert lines["time_to_reward"] == reach
    for ours, theirs, said in ((False, False, "neither got there"), (False, True, "at most 11.0")):
        sides = {"mht": late | {"reached": ours}, "theirs": late | {"reached": theirs}}
        assert f"| {said} |" in readme_results.bench_table({"time_to_reward": row | sides})
    assert main(["--check"]) == 0


def test_written_once_then_up_to_date(measured, capsys):
    assert main(["--check"]) == 1
    assert main([]) == 0
    text = README.read_text(encoding="utf-8")
    assert text.startswith("before ") and text.endswith(" after")
    assert main(["--check"]) == 0
    results = json.loads(Path(RESULTS[0]).read_text())
    results["hybrid"]["vader"]["mean"] = 0.4
    write(Path(RESULTS[0]), json.dumps(results))
    assert main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err


def test_the_rows_say_what_was_measured(measured):
    lines = table(measured).splitlines()
    assert lines[0].split(" | ")[-2:] == ["hybrid - SFT only", "verdict |"]
    assert lines[2] == (
        "| P(positive), the judge ↑ | 0.500 | 0.550 | 0.700 | 0.750 "
        "| +0.200 [0.100, 0.300] | **better** |"
    )
    verdicts = [line.split(" | ")[-1].rstrip(" |") for line in lines[2:]]
    expected = ["**better**", "unclear", "**differs**", "unclear", "**worse**", "unclear"]
    assert verdicts == expected


def test_optimiser_steps_are_counted_from_the_curves(measured):
    assert optimizer_steps(measured, "base") == 0
    assert optimizer_steps(measured, "hybrid") is None
    write_steps(measured, "sft", "sft", [{"step": n, "sft/loss": 1.0} for n in (1, 2, 3)])
    write_steps(measured, "hybrid", "sft", [{"step": 1, "sft/loss": 1.0}])
    write_steps(measured, "hybrid", "ppo", [{"step": n, "ppo/optim/steps": 8.0} for n in (2, 3)])
    assert optimizer_steps(measured, "hybrid") == 3 + 1 + 16
    assert "optimiser steps" not in table(measured)  # those of the others are not known


def test_without_results_it_says_what_to_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    assert "metrics/benchmark.json: no such file; run dvc repro first" in capsys.readouterr().err


def test_pictures_are_copied(measured):
    write(Path("reports/benchmark/metrics.png"), "picture")
    main([])
    assert Path("docs/images/benchmark.png").read_text() == "picture"


def test_directions_are_the_benchmarks():
    assert {m: row.better or "neither" for m, row in METRICS.items()} == {
        m: KNOWN[m].direction for m in METRICS
    }


def test_a_block_must_be_there_once():
    for text in ("nothing", "<!-- x:begin --><!-- x:end -->" * 2):
        with pytest.raises(BlockError):
            fill(text, "x", "new")


def unchanged() -> bool:
    """Whether the results are those of the last commit, and not of somebody's experiment."""
    paths = [*RESULTS, "plots"]
    known = subprocess.run(["git", "cat-file", "-e", f"HEAD:{RESULTS[0]}"], capture_output=True)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *paths], capture_output=True)
    return known.returncode == 0 and changed.returncode == 0


def test_results_are_up_to_date():
    if not unchanged():
        pytest.skip("the results are not the committed ones")
    text = README.read_text(encoding="utf-8")
    assert fill(text, "results", table(Path())) == text, f"run {readme_results.COMMAND}"
    assert not unfilled(text), "figures that nobody has filled in"
