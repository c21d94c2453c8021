"""The benchmark: what it reads, compares and writes."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mht.config import load_config
from mht.core.errors import ConfigError, DataError
from mht.data.text.sample import Sample
from mht.evaluation.statistics import UNCLEAR
from mht.evaluation.summary import summarise, write_json, write_samples
from mht.evaluation.text_metrics import text_metrics
from mht.reports import tables
from mht.reports.compare import compare, evenly_spaced
from mht.reports.figures import plots
from mht.reports.figures.canvas import running_mean
from mht.reports.guard import Bounds
from mht.reports.learning.curves import read_curves
from mht.reports.page.contents import html
from mht.reports.records import Comparison
from mht.reports.write import flat, write_outputs
from tests.support.variants import entries

STEPS = {"base": 0, "sft_only": 320, "ppo_only": 320, "hybrid": 320}
METRICS = ["p_positive", "vader", "response_length", "distinct_2", "kl_nats", "perplexity_human"]
TEXT = "a film of great charm and wit that never bores its very grateful audience <b>|</b>"
LIFT = {"base": 0.0, "sft_only": 0.05, "ppo_only": 0.3, "hybrid": 0.35}


def evaluated(root: Path, prompts: int = 64) -> Path:
    """Write what the evaluate stage would have written for four variants."""
    for k, (name, lift) in enumerate(LIFT.items()):
        rng = np.random.default_rng(k)
        responses = [" " + " ".join(rng.choice(TEXT.split(), 12)) for _ in range(prompts)]
        samples = [
            Sample(f"the movie number {i} was", response, " a fine film")
            for i, response in enumerate(responses)
        ]
        noise = np.random.default_rng(9).normal(0, 0.15, prompts)  # a prompt is easy for all
        per_sample = text_metrics(samples) | {
            "p_positive": np.clip(0.5 + lift + noise + rng.normal(0, 0.02, prompts), 0, 1).tolist(),
            "kl_nats": (4 * lift + rng.normal(0, 0.3 * (lift > 0), prompts)).tolist(),
            "response_length": rng.integers(10, 24, prompts).astype(float).tolist(),
            "reward/length": rng.random(prompts).tolist(),
            "nll_human": rng.uniform(30, 60, prompts).tolist(),
            "tokens_human": rng.integers(8, 16, prompts).astype(float).tolist(),
        }
        ids = [f"{i:016x}" for i in range(prompts)]
        write_samples(root / f"reports/evaluate/{name}/samples.jsonl", ids, samples, per_sample)
        summary = summarise(per_sample, samples, resamples=200, seed=0)
        write_json(root / f"metrics/evaluate/{name}.json", summary)
    for name, lift in (("hybrid", 0.3), ("ppo_only", 0.2)):
        rows = [f"{i},{0.5 + lift * i / 30 + 0.03 * (i % 3)},{0.05 * i}," for i in range(30)]
        head = "step,ppo/score/mean,ppo/kl/k1_nats,ppo/other"
        (root / f"plots/{name}").mkdir(parents=True)
        (root / f"plots/{name}/ppo.csv").write_text("\n".join([head, *rows]) + "\n")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four evaluated variants."""
    return evaluated(tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="module")
def comparison(root: Path) -> Comparison:
    """The variants of `root`, compared."""
    return compare(entries(STEPS), metrics=METRICS, samples=4, resamples=400, root=root)


@pytest.fixture(scope="module")
def written(root: Path, comparison: Comparison) -> Path:
    """`root` with the benchmark's outputs."""
    write_outputs(comparison, root=root)
    return root


def test_benchmark_json_has_every_variant_and_metric(written: Path) -> None:
    made = json.loads((written / "metrics/benchmark.json").read_text())
    assert list(made) == sorted(STEPS)
    for name in STEPS:
        assert made[name] == json.loads((written / f"metrics/evaluate/{name}.json").read_text())
        assert set(METRICS) <= set(made[name])
        assert all(v["low"] <= v["mean"] <= v["high"] for v in made[name].values())


def test_differences_are_those_of_the_means(written: Path) -> None:
    means = json.loads((written / "metrics/benchmark.json").read_text())
    found = json.loads((written / "metrics/benchmark_differences.json").read_text())
    assert set(found) == {"hybrid_minus_sft_only", "hybrid_minus_ppo_only"}
    found = found["hybrid_minus_sft_only"]
    assert {metric for metric, row in found.items() if "p_adjusted" in row} == set(METRICS)
    assert set(found) == set(means["hybrid"])
    for metric, row in found.items():
        expected = means["hybrid"][metric]["mean"] - means["sft_only"][metric]["mean"]
        assert row["difference"] == pytest.approx(expected, abs=2e-4)
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]


def test_verdicts(comparison: Comparison) -> None:
    assert comparison.verdict("p_positive") == "better"
    assert comparison.verdict("kl_nats") == "worse"
    assert comparison.verdict("vader") == UNCLEAR
    assert comparison.differences["sft_only"]["p_positive"].difference == pytest.approx(
        0.3, abs=0.05
    )


def test_only_significant_verdicts_are_bold(written: Path, comparison: Comparison) -> None:
    table = (written / "reports/benchmark/table.md").read_text()
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")]
    assert rows[2] == ["| optimiser steps", "0", "320", "320", "320", "", " |"]
    rows = [row for row in rows if len(row) == len(STEPS) + 3][3:]
    for metric, row in zip(METRICS, rows, strict=True):
        bold = comparison.verdict(metric) != UNCLEAR
        assert row[-1].startswith("**") == bold
        assert "**" not in "".join(row[:-1])


def test_samples_show_the_same_prompts_evenly(written: Path, comparison: Comparison) -> None:
    text = (written / "reports/benchmark/samples.md").read_text()
    assert comparison.rows == [8, 24, 40, 56]
    for row in comparison.rows:
        assert f"**the movie number {row} was**" in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.split(r"(?<!\\)\|", line)) for line in table} == {len(STEPS) + 3}
    assert "<b>" not in text


def test_the_report_says_who_wins_and_who_games(written: Path, comparison: Comparison) -> None:
    page = (written / "reports/benchmark/report.html").read_text()
    table = (written / "reports/benchmark/table.md").read_text()
    assert len(comparison.sentences) == 3
    assert comparison.sentences[0] in table
    assert "On P(positive), the trained reward, " in comparison.sentences[0]
    guard = json.loads((written / "reports/benchmark/guard.json").read_text())
    assert [(f["variant"], f["baseline"]) for f in guard] == [
        ("ppo_only", "sft_only"), ("hybrid", "sft_only")
    ]  # fmt: skip
    assert "| Perplexity on human text | - |" in table, "the guard is off: shown, not judged"
    assert "Guard against gaming" in page and "Who wins?" in page


def test_another_split_is_said(comparison: Comparison) -> None:
    others = dataclasses.replace(comparison, split="validation")
    figures = {"frontier": b"\x89PNG" + bytes(20), "training": b"\x89PNG" + bytes(20)}
    page = html(others, figures, figures)
    assert "Means over 64 validation prompts" in page and "means on the validation prompts" in page
    assert "Means over 64 validation prompts" in tables.markdown_table(others)
    page = html(comparison, figures, figures)
    assert "Means over 64 unseen prompts" in page and "means on the test prompts" in page
    assert plots.figures(others)["metrics"] != plots.figures(comparison)["metrics"]


def test_a_guard_that_is_on_calls_it_gaming(root: Path) -> None:
    bounds = Bounds(["vader"], 0.05, 0.15, 0.1, 0.05, 0.02, 1.0)
    found = compare(
        entries(STEPS), metrics=["vader", "repetition"], guard=bounds, resamples=200, root=root
    )
    assert {line.metric for line in found.lines} == {"vader", "repetition"}
    assert {f.variant: f.verdict for f in found.findings}["hybrid"] == "gaming"
    assert "hybrid wins by gaming: VADER does not rise (" in found.sentences[2]
    with pytest.raises(ConfigError, match=r"benchmark\.guard\.judges\[0\]: no such metric 'x'"):
        compare(entries(STEPS), metrics=["vader"], guard=bounds._replace(judges=["x"]), root=root)


def test_report_stands_alone(written: Path) -> None:
    page = (written / "reports/benchmark/report.html").read_text()
    assert not re.search(r"""(src|href|srcset)=["'](?!data:)""", page)
    assert "url(" not in page and "<script src" not in page and "@import" not in page
    assert "http" not in page
    assert "<b>|</b>" not in page and "&lt;b&gt;" in page
    assert page.count("data:image/png;base64,") == 6
    assert "hybrid 0." in page


def test_csv_for_dvc_plots(written: Path, comparison: Comparison) -> None:
    rows = list(csv.DictReader((written / "metrics/benchmark.csv").open()))
    assert list(rows[0]) == ["variant", "metric", "mean", "low", "high"]
    assert len(rows) == sum(len(v.summary) for v in comparison.variants)


def test_outputs_are_the_same_bytes_twice(tmp_path: Path, written: Path) -> None:
    evaluated(tmp_path)
    again = compare(entries(STEPS), metrics=METRICS, samples=4, resamples=400, root=tmp_path)
    write_outputs(again, root=tmp_path)
    made = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert len([p for p in made if p.suffix == ".png"]) == 3
    for path in made:
        assert (tmp_path / path).read_bytes() == (written / path).read_bytes(), path


def test_unknown_metrics_are_all_named(root: Path) -> None:
    with pytest.raises(ConfigError) as error:
        compare(entries(STEPS), metrics=["vader", "p_postive", "foo"], root=root)
    assert error.value.problems[0].startswith(
        "benchmark.metrics[1]: no such metric 'p_postive' (did you mean 'p_positive'?). Available: "
    )
    assert error.value.problems[1].startswith("benchmark.metrics[2]: no such metric 'foo'")
    with pytest.raises(ConfigError, match=r"benchmark\.metrics: is empty"):
        compare(entries(STEPS), metrics=[], root=root)


def test_missing_variant_is_named(tmp_path: Path) -> None:
    evaluated(tmp_path, prompts=4)
    (tmp_path / "metrics/evaluate/ppo_only.json").unlink()
    with pytest.raises(DataError, match=r"ppo_only\.json: no such file; evaluate the variant"):
        compare(entries(STEPS), metrics=["vader"], root=tmp_path)


def test_missing_and_broken_samples_are_named(tmp_path: Path) -> None:
    evaluated(tmp_path, prompts=4)
    path = tmp_path / "reports/evaluate/hybrid/samples.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{", *lines[2:]]))
    with pytest.raises(DataError, match=r"samples\.jsonl:2: not JSON"):
        compare(entries(STEPS), metrics=["vader"], root=tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"hybrid/samples\.jsonl: no such file"):
        compare(entries(STEPS), metrics=["vader"], root=tmp_path)


def test_different_prompts_are_refused(tmp_path: Path) -> None:
    evaluated(tmp_path, prompts=4)
    path = tmp_path / "reports/evaluate/hybrid/samples.jsonl"
    path.write_text("\n".join(reversed(path.read_text().splitlines())))
    with pytest.raises(DataError, match="base and hybrid were evaluated on different prompts"):
        compare(entries(STEPS), metrics=["vader"], root=tmp_path)


def test_metric_summaries_that_are_none_are_refused(tmp_path: Path) -> None:
    evaluated(tmp_path, prompts=4)
    (tmp_path / "metrics/evaluate/base.json").write_text('{"vader": 3}')
    with pytest.raises(DataError, match="mean, low and high"):
        compare(entries(STEPS), metrics=["vader"], root=tmp_path)


@pytest.mark.parametrize(("hybrid", "warned"), [(320, False), (336, False), (337, True)])
def test_uneven_budgets_warn(root: Path, hybrid: int, warned: bool) -> None:
    found = compare(entries(STEPS | {"hybrid": hybrid}), metrics=["vader"], resamples=50, root=root)
    assert bool(found.uneven()) == warned
    assert ("Warning" in tables.markdown_table(found)) == warned


def test_a_single_prompt_and_no_curves_still_work(tmp_path: Path) -> None:
    evaluated(tmp_path, prompts=1)
    shutil.rmtree(tmp_path / "plots")
    found = compare(entries(STEPS), metrics=METRICS, resamples=50, root=tmp_path)
    write_outputs(found, root=tmp_path)
    assert all(found.verdict(m) == UNCLEAR for m in METRICS)
    assert not (tmp_path / "reports/benchmark/training.png").exists()


def test_a_metric_that_one_variant_lacks_is_a_dash(tmp_path: Path) -> None:
    evaluated(tmp_path, prompts=8)
    shutil.rmtree(tmp_path / "plots")
    path = tmp_path / "metrics/evaluate/base.json"
    summary = json.loads(path.read_text())
    del summary["vader"], summary["kl_nats"]
    write_json(path, summary)
    found = compare(entries(STEPS), metrics=METRICS, resamples=50, root=tmp_path)
    assert "| VADER ↑ | - | " in tables.markdown_table(found)
    assert set(plots.figures(found)) == {"metrics"}


def test_evenly_spaced() -> None:
    assert evenly_spaced(3, 8) == [0, 1, 2]
    assert evenly_spaced(256, 8) == [16, 48, 80, 112, 144, 176, 208, 240]


def test_curves_skip_empty_cells(tmp_path: Path) -> None:
    (tmp_path / "plots/hybrid").mkdir(parents=True)
    text = "step,ppo/score/mean,eval\n1,0.5,\n2,,0.3\n"
    (tmp_path / "plots/hybrid/ppo.csv").write_text(text)
    (found,) = read_curves(tmp_path, ["hybrid", "base"], [0])["hybrid"]
    assert found == {"ppo/score/mean": ([1.0], [0.5]), "eval": ([2.0], [0.3])}


def test_flat_names_are_tracking_keys(comparison: Comparison) -> None:
    found = flat(comparison)
    mean = comparison["hybrid"].summary["vader"]["mean"]
    assert found["hybrid/vader"] == mean
    assert "hybrid_minus_sft_only/p_positive" in found


def test_stage_writes_prints_and_tracks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = pytest.importorskip("stages.benchmark")
    evaluated(tmp_path, prompts=8)
    config = load_config()
    monkeypatch.chdir(tmp_path)
    changed = {"metrics": METRICS, "samples": 2, "resamples": 50, "guard": None}
    wanted = config.benchmark.model_copy(update=changed)
    config = config.model_copy(update={"benchmark": wanted})
    seen: dict[str, object] = {}
    run = SimpleNamespace(
        summary=seen.update, artifact=lambda path: seen.update({path: Path(path).exists()})
    )
    stage.main(config, run)
    assert seen["reports/benchmark"] is True and "hybrid/vader" in seen
    out = capsys.readouterr()
    assert "report.html" in out.out and "P(positive)" in out.out


def test_a_curve_of_few_points_ends_where_it_ended():
    assert running_mean([0.5, 0.9]) == [0.5, 0.9]
    assert running_mean([0.0, 1, 2, 3, 4, 5])[-1] == pytest.approx(3)
