"""Reports know variants from the table alone: any names, any starts, no name that is special."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from mht.config import load_config
from mht.core.errors import DataError
from mht.core.seeds import place
from mht.reports.compare import compare
from mht.reports.costs import costs_of, looks_of
from mht.reports.learning.curves import read_curves
from mht.reports.records import Entry, stages_of
from mht.reports.write import flat, write_outputs

GOLDEN = Path(__file__).parent / "golden/project"
ROWS = [  # the last goes on from the one before
    Entry("plain", "sft", 20, True, 8),
    Entry("ink <b>", "base", 20, True, 8),
    Entry("mine", "plain", 40, True, 16),
]
FILES = {"plain": "sft_only", "ink <b>": "ppo_only", "mine": "hybrid"}  # whose files they take


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with those variants and three seeds."""
    root = tmp_path_factory.mktemp("rows")
    shutil.copytree(GOLDEN / "plots/sft", root / "plots/sft")
    for name, own in FILES.items():
        for folder in ("plots", "reports/evaluate"):
            shutil.copytree(GOLDEN / folder / own, root / folder / name)
    return root


def test_any_names_make_a_report(root: Path) -> None:
    found = compare(
        ROWS, metrics=["reward", "kl_nats"], subject="mine", baseline="plain", seeds=(7, 8),
        resamples=100, root=root,
    )  # fmt: skip
    write_outputs(found, root=root)
    folder = root / "reports/benchmark"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["variants"]["mine"] == {"start": "plain"}
    assert {(line["a"], line["b"]) for line in summary["comparisons"]} == {
        ("mine", "plain"), ("mine", "ink <b>")
    }  # fmt: skip
    page = (folder / "report.html").read_text()
    assert "<th>mine - plain</th>" in page and "ink &lt;b&gt;" in page and "ink <b>" not in page
    assert {"metrics.png", "frontier.png", "training.png"} <= {p.name for p in folder.iterdir()}
    assert [f.variant for f in found.findings] == ["ink <b>", "mine"]
    assert "mine_minus_plain/reward" in flat(found)
    rows = list(csv.DictReader((root / "metrics/training/score.csv").read_text().splitlines()))
    assert [*dict.fromkeys(row["variant"] for row in rows)] == ["ink <b>", "mine"]
    rows = list(csv.DictReader((root / "metrics/training/sft_loss.csv").read_text().splitlines()))
    assert [*dict.fromkeys(row["variant"] for row in rows)] == ["sft", "plain", "mine"]
    assert "budgets differ" in (found.uneven() or "")


def test_dvc_yaml_names_no_variant() -> None:
    words = set(re.findall(r"\w+", Path("dvc.yaml").read_text(encoding="utf-8")))
    assert not words & load_config("params.yaml").baselines.keys()


def test_costs_are_those_of_all_trainings_behind_the_weights(root: Path) -> None:
    assert stages_of(ROWS[2], ROWS) == ["sft", "plain", "mine"]
    curves = read_curves(root, ["sft", *FILES], (7, 8, 9))
    costs = costs_of(ROWS, curves, 3)
    assert costs["plain"]["optimizer_steps"] == [20, 20, 20]  # 8 of the SFT stage, 12 of its own
    assert costs["mine"]["optimizer_steps"] == [32, 32, 32]  # 4 SFT steps and 4 PPO steps of two
    assert costs["ink <b>"]["optimizer_steps"] == [20, 20, 20]
    assert costs["plain"]["sampled_tokens"] == [0, 0, 0] and min(costs["mine"]["sampled_tokens"])
    looks = looks_of(ROWS, curves)["mine"][0]
    assert [row["optimizer_steps"] for row in looks][-1] == 32
    assert looks[0]["optimizer_steps"] == 0 and "score" not in looks[0], "the SFT stage's own"


def test_a_missing_seed_is_named(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    options = {"metrics": ["reward"], "subject": "mine", "baseline": "plain", "root": tmp_path}
    shutil.rmtree(place(tmp_path / "plots/mine", (7, 8), 8))
    with pytest.raises(DataError, match=r"plots/mine/seeds/8: no training curve; run `dvc repro`"):
        compare(ROWS, seeds=(7, 8), **options)
    with pytest.raises(DataError, match=r"evaluate/plain/seeds/10/samples.jsonl: no such file"):
        compare(ROWS, seeds=(7, 10), **options)
