"""SIGKILL in the training stages of the real pipeline: nothing differs afterwards."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from mht.tracking.names import clean
from tests.support.pipeline import Clone, environment

pytest_plugins = ["tests.support.pipeline"]


@pytest.fixture
def killable(clone):
    """The finished clone, writing a checkpoint after every step."""
    clone.set_params({"base.checkpoint_every_s": 0})
    clone.commit("checkpoints after every step")
    return clone


def checkpoints(clone: Clone, stage: str) -> list[Path]:
    return sorted((clone.path / ".mht" / "scratch" / clean(stage)).glob("*/[0-9]*"))


def start_and_kill(clone: Clone, stage: str, *, at_least: int = 1, delay_s: float = 0.0) -> bool:
    """Run a stage and kill it, DVC too, some time after a checkpoint; False if it was faster."""
    command = ["dvc", "repro", "-f", "-s", stage]
    with (clone.path.parent / "killed.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=clone.path, env=environment(clone.path), stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        while process.poll() is None and not (
            (found := checkpoints(clone, stage)) and int(found[-1].name) >= at_least
        ):
            time.sleep(0.01)
        time.sleep(delay_s)
        if process.poll() is not None:
            return False
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return True


def runs_of(clone: Clone, stage: str):
    """The MLflow runs of a stage, newest first, read by a process of its own."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{clone.path / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "mht"]
    found = client.search_runs(
        [experiment.experiment_id], f"tags.`mht.stage` = '{stage}'",
        order_by=["attributes.start_time DESC"],
    )  # fmt: skip
    return client, found


def steps_of(client, run, metric: str) -> list[int]:
    return sorted(point.step for point in client.get_metric_history(run.info.run_id, metric))


CURVE = {"sft": "sft/loss", "ppo@hybrid": "ppo/score/mean"}


# the stage ppo makes SFT steps too; tests/training/resume/test_resume.py kills every kind of run
@pytest.mark.parametrize("stage", [pytest.param("sft", marks=pytest.mark.slow), "ppo@hybrid"])
def test_a_killed_stage_goes_on(killable, stage):
    before = (killable.path / "dvc.lock").read_bytes()
    client, (first,) = runs_of(killable, stage)
    assert start_and_kill(killable, stage, at_least=2), "it ended before it could be killed"
    left = checkpoints(killable, stage)
    assert left
    again = killable.dvc("repro", "-f", "-s", stage)
    assert "resumed after step" in again.stdout
    assert (killable.path / "dvc.lock").read_bytes() == before
    assert killable.run("git", "status", "--porcelain").stdout == ""
    assert checkpoints(killable, stage) == []
    client, (second, *others) = runs_of(killable, stage)
    assert [run.info.run_id for run in others] == [first.info.run_id], "a second run was begun"
    assert second.info.status == "FINISHED"
    metric = CURVE[stage]
    assert steps_of(client, second, metric) == steps_of(client, first, metric)


@pytest.mark.slow
def test_a_changed_setting_leaves_the_old_state_alone(killable):
    assert start_and_kill(killable, "sft", at_least=2)
    left = checkpoints(killable, "sft")
    killable.set_params({"sft.lr": 2.0e-4})
    changed = killable.dvc("repro", "-s", "sft")
    assert "resumed" not in changed.stdout
    assert checkpoints(killable, "sft") == left
    killable.run("git", "checkout", "params.yaml", "dvc.lock")
    back = killable.dvc("repro", "-f", "-s", "sft")
    assert "resumed after step" in back.stdout
    assert killable.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.slow
def test_a_fresh_start_on_request(killable):
    assert start_and_kill(killable, "sft", at_least=2)
    fresh = killable.dvc("repro", "-f", "-s", "sft", MHT_FRESH="1")
    assert "resumed" not in fresh.stdout
    assert killable.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "ppo@hybrid"])
def test_killed_at_random_points(killable, stage):
    """Ten kills each, some before the first checkpoint, some while one is written."""
    before = (killable.path / "dvc.lock").read_bytes()
    chance = random.Random(stage)
    kills = Counter()
    while kills["killed"] < 10:
        killed = start_and_kill(
            killable, stage, at_least=chance.randint(0, 4), delay_s=chance.uniform(0, 0.5)
        )
        kills["killed" if killed else "finished"] += 1
        assert kills["finished"] < 10, "the stage is too fast to be killed"
    killable.dvc("repro", "-f", "-s", stage)
    assert (killable.path / "dvc.lock").read_bytes() == before
    assert killable.run("git", "status", "--porcelain").stdout == ""
    client, (last, *_) = runs_of(killable, stage)
    assert last.info.status == "FINISHED"
    steps = steps_of(client, last, CURVE[stage])
    assert len(steps) == len(set(steps))
