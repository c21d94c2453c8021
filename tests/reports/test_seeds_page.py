"""The report of a benchmark over seeds: any variants' names, what it writes, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mht.cli.main import app, commands
from mht.core.errors import DataError
from mht.data.text.sample import Sample
from mht.evaluation.summary import write_json, write_samples
from mht.reports.figures import bands
from mht.reports.guard import Bounds
from mht.reports.seeds_page import seeds_page

BOUNDS = Bounds([], 0.05, 0.15, None, None, None, 4.0)
MEANS = {"base": 0.2, "sft_only": 0.4, "with <memory>": 0.7}
SEEDS = [3, 4]


def looks(mean: float, seed: int, tokens: int) -> list[dict[str, float]]:
    """A curve: the KL begins again where PPO does, at step 10."""
    kl = (0.0, 5.0, 0.0, 1.0, 2.0)
    return [
        {"optimizer_steps": step, "score": mean * i / 4 + 0.01 * seed, "kl_nats": kl[i],
         "sampled_tokens": tokens * i}
        for i, step in enumerate((0, 10, 10, 20, 30))
    ]  # fmt: skip


def filled(folder: Path) -> Path:
    """What `mht seeds` would have left, for variants of other names."""
    random = np.random.default_rng(0)
    for name, mean in MEANS.items():
        for seed in SEEDS:
            place = folder / f"seed_{seed}" / name
            samples = [Sample(f"p{i}", f" r{i} </script>") for i in range(30)]
            numbers = {
                "reward": (mean + 0.05 * random.standard_normal(30)).tolist(),
                "response_length": (10 + random.integers(0, 2, 30)).astype(float).tolist(),
                "kl_nats": (10 * mean + random.random(30)).tolist(),
            }
            write_samples(place / "samples.jsonl", [str(i) for i in range(30)], samples, numbers)
            curve = looks(mean, seed, 100 if mean > 0.5 else 0)
            write_json(place / "result.json", {"budget": {}, "curve": curve})
    cost = {"mean": 30.0, "min": 30.0, "max": 30.0}
    value = {"mean": 0.5, "low": 0.4, "high": 0.6}
    write_json(
        folder / "summary.json",
        {
            "seeds": SEEDS,
            "prompts": 30,
            "budget": {n: {"optimizer_steps": cost, "sampled_tokens": cost} for n in MEANS},
            "metrics": {"response_length": {n: {**value, "iqm": 0.5} for n in MEANS}},
            "comparisons": [
                {"metric": "response_length", "a": "with <memory>", "b": "sft_only",
                 "difference": 0.1, "low": 0.0, "high": 0.2, "p": 0.5, "p_adjusted": 0.5,
                 "cohens_d": None, "cliffs_delta": 0.0, "winner": None}
            ],
        },
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two seeds and three variants, with its report."""
    made = filled(tmp_path_factory.mktemp("seeds"))
    assert seeds_page(made, guard=BOUNDS, resamples=200) == made / "report.html"
    return made


def test_the_page_has_tables_figures_samples_and_the_guard(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "with &lt;memory&gt;" in text and "with <memory>" not in text
    assert text.count("data:image/png;base64,") == 6
    assert "Who wins on what" in text and "unclear" in text
    assert "2 training seeds and 30 unseen" in text
    assert "with &lt;memory&gt; wins by gaming" not in text
    (finding,) = json.loads((folder / "guard.json").read_text())
    assert (finding["variant"], finding["baseline"]) == ("with <memory>", "sft_only")
    assert finding["verdict"] == "sound" and finding["gain"]["difference"] > 0.2
    assert "On the trained reward with &lt;memory&gt; is" in (folder / "report.md").read_text()
    assert {p.name for p in folder.glob("*.png")} == {"metrics.png", "frontier.png", "training.png"}


def test_a_variant_of_any_name_may_have_begun_with_the_base(folder: Path, tmp_path: Path) -> None:
    """sft_only is 4.5 nats away itself, so 7.5 say nothing, unless they are from the start."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    verdicts = {}
    for known in ({}, {"recipe": "hybrid"}, {"recipe": "ppo_only"}, {"from_base": True}):
        write_json(tmp_path / "summary.json", {**summary, "variants": {"with <memory>": known}})
        seeds_page(tmp_path, guard=BOUNDS._replace(max_kl_nats=2.0), resamples=100)
        (finding,) = json.loads((tmp_path / "guard.json").read_text())
        (check,) = [c for c in finding["checks"] if c["metric"] == "kl_nats"]
        verdicts[str(known)] = check["broken"]
    assert list(verdicts.values()) == [None, None, True, True]


def test_another_split_is_said(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    write_json(tmp_path / "summary.json", {**summary, "split": "validation"})
    text = seeds_page(tmp_path, guard=BOUNDS, resamples=100).read_text(encoding="utf-8")
    assert "2 training seeds and 30 validation prompts" in text
    assert "means on the validation prompts" in text and "test prompts" not in text


def test_another_baseline_and_what_is_missing(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(DataError, match="no variant 'none'; there are base, sft_only, with"):
        seeds_page(tmp_path, baseline="none")
    (tmp_path / "seed_3/base/samples.jsonl").unlink()
    with pytest.raises(DataError, match=r"samples\.jsonl: no such file"):
        seeds_page(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(DataError, match="lacks 'budget'"):
        seeds_page(tmp_path)


def test_the_way_begins_where_ppo_does() -> None:
    curves = {"ppo": [looks(0.8, 0, 9), looks(0.8, 2, 9)], "sft": [looks(0.4, 0, 0)] * 2}
    found = bands.ways(curves)
    assert list(found) == ["ppo"], "without sampled tokens there is no way"
    assert found["ppo"] == ([0.0, 1.0, 2.0], pytest.approx([0.41, 0.61, 0.81]))
    assert bands.ways({"none": [[], []]}) == {}
    assert bands.figure({"none": [[], []]}, {}) is None


def test_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    said = CliRunner().invoke(commands, ["report", str(folder)])
    assert said.exit_code != 0, "this folder has no VADER, which the default guard asks"
    assert "benchmark.guard.judges[0]" in str(said.exception)
    monkeypatch.setattr("sys.argv", ["mht", "report", str(folder / "nothing")])
    with pytest.raises(SystemExit) as stopped:
        app()
    assert stopped.value.code == 2
    assert "summary.json: no such file; `mht seeds` writes it" in capsys.readouterr().err
