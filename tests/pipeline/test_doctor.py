"""`mht doctor`: what it finds wrong, and the command that mends it."""

import subprocess
from collections import namedtuple
from pathlib import Path

import pytest

from mht.pipeline import doctor

pytest_plugins = ["tests.support.pipeline"]

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    return tmp_path


def one(check):
    (finding,) = check()
    return finding


def tracked(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("x")
    subprocess.run(["git", "add", "-f", *names], check=True)


def test_data_and_outputs_in_git_are_wrong(repository):
    tracked("data/local/README.md", "data/local/a.csv.dvc", "params.yaml")
    assert one(doctor._tracked).level == "ok"
    tracked("data/local/a.csv", "models/hybrid/config.json")
    data, outs = doctor._tracked()
    assert data.mend == "git rm --cached data/local/a.csv && dvc add data/local/a.csv"
    assert outs.level == "wrong" and "models/hybrid/config.json" in outs.what


def test_another_python_would_run_the_stages(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/elsewhere/python")
    found = one(doctor._python)
    assert found.level == "wrong" and found.mend.endswith("/activate")


def test_a_missing_tool_is_named(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert [finding.what for finding in doctor._tools()] == [
        "git is not on the PATH",
        "dvc is not on the PATH",
    ]


@pytest.mark.parametrize(("free", "level"), [(50e9, "ok"), (6e9, "note"), (1e9, "wrong")])
def test_little_space_is_noted_and_none_is_wrong(monkeypatch, free, level):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(0, 0, free))
    assert one(doctor._disk).level == level


def test_settings_that_are_wrong_are_named(repository):
    Path("params.yaml").write_text("ppo: {cycels: 3}\n")
    found = list(doctor._settings())
    assert {finding.level for finding in found} == {"wrong"}
    assert "problem" in found[0].what and "mht check" in found[0].mend


def test_a_sound_project_and_a_queue_that_nobody_works_on(clone):
    """In a clone that commits its data, as tests need them in temporary experiments."""
    said = clone.run("python", "-m", "mht", "doctor", code=1).stdout
    assert "params.yaml is right" in said and "MLflow's store opens" in said
    assert "DVC's queue: 0 waiting" in said and max(map(len, said.splitlines())) <= 80
    wrong = [line for line in said.splitlines() if line.startswith("wrong")]
    assert wrong and all("git has data/local/" in line for line in wrong)
    clone.dvc("exp", "run", "--queue", "-S", "ppo.kl_coef=0.1")
    said = clone.run("python", "-m", "mht", "doctor", code=1).stdout
    assert "1 queued experiments wait for a worker" in said and "-> dvc queue start" in said
