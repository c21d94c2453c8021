"""A small search on random walks, whose fine-tuned model is made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mht.config import Config
from mht.config.overlays.overlay import layered
from mht.core.component import build
from mht.experiments.search.run import Job, Search
from mht.experiments.search.start import make_start
from mht.tracking.content.pipeline import read_pipeline
from tests.support.tracking import blank_database

RANDOMWALKS = Path("mht/tasks/randomwalks/settings.yaml")
TRIALS = 4
TINY = """
base: {checkpoint_every_s: 0}
model: {name: {type: scratch, architecture: gpt2, layers: 1, width: 16, heads: 2, context: 32}}
data: {source: {type: randomwalks, walks: 120, graph_seed: 1000}}
sft: {steps: 2, eval_every: 2, eval_examples: 4, batch_size: 4}
ppo: {cycles: 3, ppo_steps_per_cycle: 1, batch_size: 16, minibatch_size: 4, sft_batch_size: 4,
      epochs: 1, eval_every: 1, eval_prompts: 8, scheduler: {type: constant}}
tune:
  space:
    ppo.lr: {type: float, low: 1.0e-4, high: 1.0e-1, log: true}
    ppo.epochs: {type: int, low: 1, high: 2}
    ppo.kl_estimator: {type: categorical, choices: [k1, k3]}
  metric: {validation/score: 1.0, validation/length_tokens: 0.01}
  trials: 4
  startup_trials: 1
"""


def settings_of(folder: Path, **tune):
    """The plain settings of the small search; ``tune`` changes its section."""
    (folder / "tiny.yaml").write_text(TINY)
    settings = layered([RANDOMWALKS, folder / "tiny.yaml"])
    settings["tune"] = {**settings["tune"], **tune}
    return settings


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """The model that trials start from, with the prepared data; no test split."""
    folder = tmp_path_factory.mktemp("start")
    made = make_start(build(Config, settings_of(folder)), read_pipeline(), folder / "start")
    (made.prepared / "test.parquet").unlink()
    return made


def job_of(folder: Path, start, **tune) -> Job:
    settings = settings_of(folder, **tune)
    return Job("small", folder / "small", settings, build(Config, settings), start, {})


def own_store(folder: Path, monkeypatch) -> Path:
    """An MLflow store of the test's own."""
    shutil.copy(blank_database(), folder / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    return folder / "mlflow.db"


@pytest.fixture(scope="module")
def searched(start, tmp_path_factory):
    """The folder, the job and the study of a search that ran without being stopped."""
    folder = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        own_store(folder, patch)
        job = job_of(folder, start)
        return folder, job, Search(job).run()


def outcomes(study):
    """Number, values, objective, curve and state of every trial."""
    return [
        (t.number, t.params, t.value, t.intermediate_values, t.state.name)
        for t in study.get_trials()
    ]


def runs_of(database: Path):
    """The search's MLflow run and those of its trials by number, with a client."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "mht"]
    found = client.search_runs([experiment.experiment_id])
    (above,) = [r for r in found if r.data.tags["mht.kind"] == "search"]
    trials = [r for r in found if r.data.tags["mht.kind"] == "trial"]
    by_number = {int(r.data.tags["mht.trial"]): r for r in trials}
    assert len(by_number) == len(trials), "a trial has two runs"
    return client, above, by_number
