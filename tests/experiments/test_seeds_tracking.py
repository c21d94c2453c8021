"""The runs that a benchmark over seeds leaves in MLflow: one each, however often it is repeated."""

import json

import pytest

from mht.tracking.seeds import NullSeeds, SeedsRun
from mht.tracking.store import open_store

pytest_plugins = ["tests.support.tracking"]

CURVE = [
    {"optimizer_steps": 0, "seconds": 0.0, "score": 0.1},
    {"optimizer_steps": 4, "seconds": 1.0, "score": 0.2},
    {"optimizer_steps": 4, "seconds": 1.0, "score": 0.3},
]
RESULT = {"budget": {"optimizer_steps": 4, "seconds": 1.0}, "curve": CURVE}
SETTINGS = {"ppo": {"lr": 0.5}, "benchmark": {"seeds": 3}}


@pytest.fixture
def samples(store_file, tmp_path):
    file = tmp_path / "samples.jsonl"
    file.write_text(json.dumps({"id": "a"}) + "\n")
    return file


def runs():
    store = open_store("tests")
    found = store.client.search_runs([store.experiment_id])
    return {run.info.run_name: run for run in found}, len(found)


def finish(benchmark, samples, variant="hybrid", seed=0, code="x"):
    benchmark.finish(
        variant, seed, {"settings": "s", "code": code}, params={"loop": {"lam": 0.9}},
        result=RESULT, metrics={"reward": 0.3, "reward@1": 0.2}, samples=samples,
    )  # fmt: skip


def test_a_run_for_each_variant_and_seed_under_one(samples):
    with SeedsRun("walks", SETTINGS, "tests") as benchmark:
        for seed in (0, 1):
            benchmark.begin("hybrid", seed, {"settings": "s", "code": "x"})
            finish(benchmark, samples, seed=seed)
        benchmark.summary({"benchmark/reward/hybrid/mean": 0.3}, [samples])
    found, count = runs()
    assert count == 3 and found.keys() == {"seeds-walks", "hybrid-seed0", "hybrid-seed1"}
    above, child = found["seeds-walks"], found["hybrid-seed1"]
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert child.data.tags["mlflow.parentRunId"] == above.info.run_id
    assert above.data.params == {"ppo.lr": "0.5"}
    assert child.data.params == {"variant": "hybrid", "seed": "1", "loop.lam": "0.9"}
    assert child.data.metrics["final/reward.1"] == 0.2, "MLflow refuses @"
    assert child.data.metrics["budget/optimizer_steps"] == 4
    client = open_store("tests").client
    history = client.get_metric_history(child.info.run_id, "validation/score")
    assert [(point.step, point.value) for point in history] == [(0, 0.1), (4, 0.3)]
    assert [file.path for file in client.list_artifacts(child.info.run_id)] == ["samples.jsonl"]


def test_a_repeat_adds_nothing_and_other_code_adds_a_run(samples):
    for code in ("x", "x", "y"):
        with SeedsRun("walks", SETTINGS, "tests") as benchmark:
            finish(benchmark, samples, code=code)
    found, count = runs()
    assert count == 3
    assert found["hybrid-seed0"].data.metrics["validation/score"] == 0.3


def test_a_killed_run_goes_on_as_the_same(samples):
    with pytest.raises(KeyboardInterrupt), SeedsRun("walks", SETTINGS, "tests") as benchmark:
        benchmark.begin("hybrid", 0, {"settings": "s", "code": "x"})
        raise KeyboardInterrupt
    before, _ = runs()
    assert {run.info.status for run in before.values()} == {"KILLED"}
    with SeedsRun("walks", SETTINGS | {"benchmark": {"seeds": 9}}, "tests") as benchmark:
        finish(benchmark, samples)
    after, count = runs()
    assert count == 2
    assert {name: run.info.run_id for name, run in after.items()} == {
        name: run.info.run_id for name, run in before.items()
    }
    assert {run.info.status for run in after.values()} == {"FINISHED"}


def test_an_error_is_failed_and_a_store_that_is_not_there_a_warning(samples, monkeypatch, capsys):
    with pytest.raises(ValueError), SeedsRun("walks", SETTINGS, "tests") as benchmark:
        benchmark.begin("hybrid", 0, {"settings": "s", "code": "x"})
        raise ValueError
    assert {run.info.status for run in runs()[0].values()} == {"FAILED"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{samples}/no/mlflow.db")
    with SeedsRun("walks", SETTINGS, "tests") as benchmark:
        benchmark.begin("hybrid", 0, {})
        finish(benchmark, samples)
    assert capsys.readouterr().err.count("warning: tracking could not open the store") == 1
    with NullSeeds() as nothing:
        finish(nothing, samples)
