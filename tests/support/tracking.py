"""Stores and projects for the tests of tracking. New databases cost seconds: one, copied."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

DVC_YAML = """
stages:
  prepare:
    cmd: mkdir -p data && cp raw.txt data/a.txt
    deps: [raw.txt]
    params: [base.seed]
    outs: [data]
  sft:
    foreach: ${variants}
    do:
      cmd: mkdir -p models metrics && cp data/a.txt models/${item.name} &&
        echo "{\\"loss\\":{\\"mean\\":${item.loss},\\"low\\":0,\\"high\\":1}}" > metrics/${key}.json
      deps: [data]
      params: [sft, base.seed]
      outs: ["models/${item.name}"]
      metrics:
        - metrics/${key}.json: {cache: false}
  report:
    matrix:
      kind: [short, long]
      variant: [a]
    cmd: echo ${item.kind} > ${item.kind}.md
    deps: ["models/one"]
    outs: ["${item.kind}.md"]
"""
PARAMS_YAML = """
base: {seed: 1, experiment: mht}
sft: {lr: 1.0e-3}
variants:
  a: {name: one, loss: 0.5}
  b: {name: two, loss: 0.25}
"""


@functools.cache
def blank_database() -> Path:
    """An initialised MLflow database without experiments of ours."""
    import mlflow

    place = Path(tempfile.mkdtemp()) / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{place}").search_experiments()
    return place


@pytest.fixture
def store_file(tmp_path, monkeypatch):
    """A store of its own for the test, which runs in a folder of its own; the database's path."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    shutil.copy(blank_database(), tmp_path / "mlflow.db")
    return tmp_path / "mlflow.db"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A git and DVC project with templates in its dvc.yaml; the working directory."""
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "someone")
        monkeypatch.setenv(f"{name}_EMAIL", "someone@example.com")
    subprocess.run(["git", "init", "-q", "."], check=True)
    Repo.init().close()
    Path("dvc.yaml").write_text(DVC_YAML)
    Path("params.yaml").write_text(PARAMS_YAML)
    Path("raw.txt").write_text("text\n")
    Path(".dvcignore").write_text("__pycache__/\n*.tmp\n")
    Path(".gitignore").write_text("/mlflow.db*\n/mlartifacts/\n")
    return tmp_path


@pytest.fixture
def reproduce():
    """A function: `dvc repro`, and a commit of what it leaves."""

    def run() -> None:
        from dvc.repo import Repo

        with Repo() as repo:
            repo.reproduce()
        subprocess.run(["git", "add", "-A"], check=True)
        subprocess.run(["git", "commit", "-qm", "state"], check=True)

    return run
