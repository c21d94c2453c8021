"""One p and one word for a difference, wherever it is shown; no interval of a single value."""

import json
import math
import re

import numpy as np
import pytest

from mht.config import load_config
from mht.data.text.sample import Sample
from mht.evaluation.over_seeds import seeds_difference
from mht.evaluation.statistics import difference_of, interval_of, paired_difference, verdict
from mht.evaluation.summary import summarise, write_json, write_samples
from mht.reports.compare import compare, lines_of
from mht.reports.learning.reach import Times, reached
from mht.reports.wording import cell, ends
from mht.reports.write import write_outputs
from tests.support.variants import entries
from tools.readme_results import judge

MEANS = {"base": 0.2, "sft_only": 0.45, "ppo_only": 0.48, "hybrid": 0.7}
METRICS = ["reward", "response_length"]


def test_page_table_and_metrics_show_the_same_p(tmp_path):
    random = np.random.default_rng(5)
    texts = [Sample(f"p{i}", f"a b {i}", "a") for i in range(40)]
    for name, mean in MEANS.items():
        numbers = {"reward": (mean + 0.1 * random.standard_normal(40)).tolist()}
        place = tmp_path / f"reports/evaluate/{name}/samples.jsonl"
        write_samples(place, list(map(str, range(40))), texts, numbers)
        write_json(tmp_path / f"metrics/evaluate/{name}.json", summarise(numbers, texts))
    table = entries(dict.fromkeys(MEANS, 10))
    found = compare(table, metrics=["reward"], resamples=400, seed=7, root=tmp_path)
    write_outputs(found, root=tmp_path)
    folder = tmp_path / "reports/benchmark"
    page, text = (
        (folder / name).read_text(encoding="utf-8") for name in ("report.html", "table.md")
    )
    rows = json.loads((tmp_path / "metrics/benchmark_differences.json").read_text())
    lines = json.loads((folder / "summary.json").read_text())["comparisons"]
    assert [line["b"] for line in lines] == ["sft_only", "ppo_only"]
    assert [line["winner"] for line in lines] == ["hybrid", "hybrid"]
    for line in lines:
        assert rows[f"hybrid_minus_{line['b']}"]["reward"]["p_adjusted"] == line["p_adjusted"]
        assert text.count(f"p = {line['p_adjusted']:.3f} |") == 3
        assert f"p = {line['p_adjusted']:.3f}" in page
    values = [found[n].evaluated.per_sample["reward"] for n in ("hybrid", "sft_only")]
    p = paired_difference(*values, resamples=400, seed=7).p
    assert (
        lines[0]["p"]
        == rows["hybrid_minus_sft_only"]["reward"]["p_value"]
        == pytest.approx(p, rel=1e-5)
    )
    assert lines[0]["p_adjusted"] == pytest.approx(2 * p, rel=1e-5)


@pytest.mark.parametrize("way", ["higher", "lower", "neither", ""])
def test_the_word_is_one_functions(way):
    assert verdict(way, 1.0, 0.05) == verdict(way, -1.0, 0.9) == "unclear"
    words = [verdict(way, sign, 0.049) for sign in (1.0, -1.0)]
    expected = {"higher": ["better", "worse"], "lower": ["worse", "better"]}
    assert words == expected.get(way, ["differs", "differs"])


def test_the_readme_has_the_same_words():
    found = {
        "vader": {"difference": 0.1, "p_adjusted": 0.04},
        "kl_nats": {"difference": 0.1, "p_adjusted": 0.03},
        "response_length": {"difference": 0.1, "p_adjusted": 0.04},
        "distinct_2": {"difference": 0.1, "p_adjusted": 0.06},
    }
    assert judge(found) == {
        "vader": "**better**", "kl_nats": "**worse**", "response_length": "**differs**",
        "distinct_2": "unclear",
    }  # fmt: skip


# -- too few -----------------------------------------------------------------------------------


def test_one_value_has_no_interval():
    found = interval_of([0.5])
    assert found.mean == 0.5 and math.isnan(found.low) and math.isnan(found.high)
    for pair in ([0.5], [0.2]), ([0.5], [0.5]):
        difference = difference_of(*pair)
        assert math.isnan(difference.low) and difference.p == 1.0
    assert math.isnan(reached(Times(np.array([3.0]), np.array([10.0]))).time.low)
    assert ends(math.nan, math.nan) == ends(None, None) == "(too few for an interval)"
    assert cell({"mean": 0.5, "low": None, "high": None})["low"] == "too few for an interval"


def test_a_summary_of_one_group_is_json(tmp_path):
    """Distinct-n is counted in groups of responses: eight are one group."""
    samples = [Sample("p", f"a {i} b", "") for i in range(8)]
    summary = summarise({"vader": [0.1 * i for i in range(8)]}, samples)
    write_json(tmp_path / "summary.json", summary)
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found["distinct_2"]["low"] is None and found["distinct_2"]["mean"] > 0
    assert found["vader"]["low"] < found["vader"]["mean"] < found["vader"]["high"]


def test_every_table_says_too_few(tmp_path):
    texts = [Sample("p", "a b", "a")]
    for name, mean in MEANS.items():
        numbers = {"p_positive": [mean], "kl_nats": [mean]}
        write_samples(tmp_path / f"reports/evaluate/{name}/samples.jsonl", ["1"], texts, numbers)
        write_json(tmp_path / f"metrics/evaluate/{name}.json", summarise(numbers, texts))
    steps = dict.fromkeys(MEANS, 10)
    write_outputs(
        compare(entries(steps), metrics=["p_positive", "distinct_2"], root=tmp_path), root=tmp_path
    )
    folder = tmp_path / "reports/benchmark"
    for name in ("report.html", "table.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "too few for an interval" in text
        assert not re.search(r"\bnan\b|None", text.partition("<script")[0])
    assert "nan" not in (tmp_path / "metrics/benchmark.csv").read_text()


def test_the_committed_settings_ask_the_readmes_questions():
    """The README's table shows the questions of the terminal and the page."""
    from tools.readme_results import BASELINE
    from tools.readme_results import METRICS as ASKED

    assert list(ASKED) == load_config().benchmark.metrics
    assert load_config().benchmark.baseline == BASELINE


def test_who_wins_on_what():
    random = np.random.default_rng(0)
    old = 0.1 * random.standard_normal((1, 10, 40))
    new = old + 0.5 + 0.01 * random.standard_normal(old.shape)
    twin = new + 0.01 * random.standard_normal(old.shape)
    metrics = ["reward", "kl_nats", "response_length"]
    differences = {
        name: dict.fromkeys(metrics, seeds_difference(new, other))
        for name, other in (("old", old), ("twin", twin))
    }
    lines = lines_of(metrics, "new", differences)
    assert [(line.metric, line.b, line.winner, line.verdict) for line in lines] == [
        ("reward", "old", "new", "better"),
        ("reward", "twin", None, "unclear"),
        ("kl_nats", "old", "old", "worse"),
        ("kl_nats", "twin", None, "unclear"),
        ("response_length", "old", None, "differs"),
        ("response_length", "twin", None, "unclear"),
    ]
    smallest = min(line.found.p for line in lines)
    assert min(line.p_adjusted for line in lines) == 6 * smallest, "the smallest of six, by Holm"
    assert all(line.p_adjusted >= line.found.p for line in lines)
