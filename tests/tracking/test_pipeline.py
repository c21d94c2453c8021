"""What tracking knows of the pipeline equals what DVC knows; names that MLflow takes."""

import subprocess
import sys
from pathlib import Path

import pytest

from mht.tracking import names
from mht.tracking.content.pipeline import Pipeline, Stage, read_pipeline, tree_md5

pytest_plugins = ["tests.support.tracking"]


def test_stages_are_resolved_as_dvc_yaml_says(project):
    pipeline = read_pipeline()
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(pipeline.stages) == sorted(listed.stdout.split())
    stage = pipeline.stages["sft@b"]
    assert stage.deps == ("data",)
    assert set(stage.outs) == {"models/two", "metrics/b.json"}
    assert stage.metrics == ("metrics/b.json",)
    assert set(stage.params) == {"sft", "base.seed"}
    assert pipeline.stages["report@long-a"].cmd == "echo long > long.md"
    assert pipeline.stage_of_command("echo long > long.md") is pipeline.stages["report@long-a"]
    assert pipeline.params["sft"] == {"lr": 1e-3}


def test_this_repositorys_stages_are_those_of_its_dvc_yaml(project):
    import shutil

    from dvc.parsing import DataResolver
    from dvc.repo import Repo
    from ruamel.yaml import YAML

    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(Path(__file__).parents[2] / name, name)
    with Repo() as repo:
        written = YAML(typ="safe").load(Path("dvc.yaml"))
        expected = DataResolver(repo, repo.root_dir, written).resolve()["stages"]
    stages = read_pipeline().stages
    assert stages.keys() == expected.keys() and "ppo@hybrid" in stages
    for name, stage in stages.items():
        plain = expected[name]
        assert set(stage.deps) == set(plain.get("deps", []))
        assert set(stage.params) == set(plain.get("params", []))
        groups = [plain.get(kind, []) for kind in ("outs", "metrics", "plots")]
        paths = [out if isinstance(out, str) else next(iter(out)) for g in groups for out in g]
        assert set(stage.outs) == set(paths)


def test_upstream_follows_the_files(project):
    pipeline = read_pipeline()
    assert list(pipeline.upstream("report@short-a")) == ["prepare", "sft@a"]
    assert pipeline.upstream("prepare") == {}
    assert pipeline.upstream("no such stage") == {}


def test_tree_md5_is_what_dvc_writes_to_its_lock(project, reproduce):
    reproduce()
    for stage in read_pipeline().stages.values():
        assert stage.recorded and stage.read
        for path, md5 in {**stage.recorded, **stage.read}.items():
            assert tree_md5(path) == md5, path


def test_tree_md5_of_nested_folders_and_ignored_files(project):
    from dvc.repo import Repo

    for name in ("a/z.txt", "a/b/c.txt", "a/B.txt", "a/ä.txt", "a/__pycache__/x.pyc", "a/y.tmp"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    with Repo() as repo:
        added = repo.add("a")
        assert tree_md5("a") == added[0].outs[0].hash_info.value
    Path("a/y.tmp").write_text("changed, but ignored")
    before = tree_md5("a")
    Path("a/z.txt").write_text("changed")
    assert before == added[0].outs[0].hash_info.value != tree_md5("a")


def test_a_revision_and_the_workspace_have_the_same_state(project, reproduce):
    from mht.tracking.record import state_key

    reproduce()
    here, head = read_pipeline(), read_pipeline("HEAD")
    assert head == here
    assert here.results == {
        "metrics/a.json": {"loss": {"mean": 0.5, "low": 0, "high": 1}},
        "metrics/b.json": {"loss": {"mean": 0.25, "low": 0, "high": 1}},
    }
    Path("raw.txt").write_text("other\n")
    reproduce()
    assert read_pipeline("HEAD~1") == head
    assert state_key(read_pipeline()) != state_key(head)


def test_current_stages_are_those_that_repro_skips(project, reproduce):
    reproduce()
    pipeline = read_pipeline()
    same = {path: md5 for path, md5 in pipeline.stages["sft@a"].recorded.items()}
    others = set(pipeline.stages) - {"sft@a"}
    assert pipeline.current("sft@a", same).keys() == others
    changed = {**same, "models/one": "0" * 32}
    assert pipeline.current("sft@a", changed).keys() == {"prepare", "sft@b"}
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("0.001", "1"))
    assert read_pipeline().current("sft@a", same).keys() == others
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("1.0e-3", "1"))
    assert read_pipeline().current("sft@a", same).keys() == others - {"sft@b"}
    Path("raw.txt").write_text("other\n")  # prepare is stale, and so is all behind it
    assert read_pipeline().current("sft@a", same).keys() == set()


def test_a_folder_dep_below_an_out_counts_as_its_maker():
    made = Stage("make", "m", outs=("models",))
    reader = Stage("read", "r", deps=("models/one/config.json",))
    pipeline = Pipeline({"make": made, "read": reader, "x": Stage("x", "x", outs=("mod",))}, {}, {})
    assert list(pipeline.upstream("read")) == ["make"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("evaluate@base/kl", "evaluate.base/kl"),
        ("ppo/score/mean", "ppo/score/mean"),
        ("a//b/../c", "a/c"),
        ("/etc/x", "etc/x"),
        ("..", "_"),
        ("50% (é)[1]", "50. .é..1."),
    ],
)
def test_clean_names(given, expected):
    assert names.clean(given) == expected


@pytest.mark.parametrize("name", ["a@b", "a//b", "../x", "x" * 400, "", "é`'\"", "."])
def test_mlflow_takes_every_clean_name(name):
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    _validate_metric_name(names.clean(name))
    _validate_param_name(names.clean(name))


def test_metrics_that_are_no_finite_numbers_are_left_out():
    data = {"a": float("nan"), "b": {"c": float("inf"), "d": 1}, "e": True, "f": "x", "g": None}
    assert names.flat_metrics(data, "s@1") == {"s.1/b/d": 1.0}


def test_of_an_interval_the_mean_is_the_metric():
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6}
    assert names.flat_metrics({"kl": interval, "n": {"mean": 1, "max": 2}}) == {
        "kl": 0.5,
        "n/mean": 1,
        "n/max": 2,
    }


def test_params_are_flat_and_chosen_by_section():
    data = {"ppo": {"lr": 5e-05, "reward": {"components": [{"type": "a"}]}, "on": True}, "p": None}
    flat = names.flat_params(data)
    assert flat == {
        "ppo.lr": "5e-05",
        "ppo.reward.components.0.type": "a",
        "ppo.on": "true",
        "p": "null",
    }
    assert names.chosen(flat, ["ppo.reward", "p"]) == {
        "ppo.reward.components.0.type": "a",
        "p": "null",
    }
