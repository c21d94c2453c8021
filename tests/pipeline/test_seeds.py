"""Several training seeds in the real pipeline: raised, killed, trained anew."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.support.pipeline import Clone, environment

pytest_plugins = ["tests.support.pipeline"]


def kill_in_second_seed(clone: Clone, stage: str) -> None:
    """Force a stage to run again, and kill it when the first seed has ended."""
    log = clone.path.parent / "killed.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            ["dvc", "repro", "-f", "-s", stage], cwd=clone.path, env=environment(clone.path),
            stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
        while process.poll() is None and "training seed 1" not in log.read_text():
            time.sleep(0.01)
        assert process.poll() is None, log.read_text()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


FILES = (
    "models/sft/model.safetensors", "models/hybrid/model.safetensors", "plots/hybrid/ppo.csv",
    "metrics/hybrid.json", "reports/evaluate/hybrid/samples.jsonl",
)  # fmt: skip


def files_of(clone: Clone) -> dict[str, bytes]:
    return {path: (clone.path / path).read_bytes() for path in FILES}


def test_more_seeds_keep_what_is_there_and_a_kill_loses_no_seed(clone):
    before = files_of(clone)
    clone.set_params({"base.seeds": 2})
    done = clone.dvc("repro", "evaluate@hybrid")
    assert done.stdout.count("training seed 0, 1 of 2, done before") == 3, "sft, ppo, evaluate"
    assert done.stdout.count("training seed 1, 2 of 2\n") == 3
    assert files_of(clone) == before
    second = clone.path / "models/hybrid/seeds/1/model.safetensors"
    assert second.read_bytes() != before["models/hybrid/model.safetensors"]
    assert (clone.path / "plots/hybrid/seeds/1/ppo.csv").is_file()
    lock = clone.lock()["ppo@hybrid"]
    kill_in_second_seed(clone, "ppo@hybrid")
    again = clone.dvc("repro", "-f", "-s", "ppo@hybrid")
    assert "training seed 0, 1 of 2, done before" in again.stdout
    assert clone.lock()["ppo@hybrid"] == lock, "both seeds, trained anew, are the same"


@pytest.mark.slow
def test_the_page_is_over_seeds_and_fewer_seeds_are_taken_from_the_cache(clone):
    before = files_of(clone)
    clone.set_params({"base.seeds": 2})
    clone.dvc("repro")
    table = (clone.path / "reports/benchmark/table.md").read_text()
    assert "12 unseen prompts, 2 training seeds" in table
    summary = clone.json("reports/benchmark/summary.json")
    assert summary["seeds"] == [0, 1]
    assert len(summary["metrics"]["response_length"]["hybrid"]["per_seed"]) == 2
    measured = clone.json("metrics/evaluate/hybrid.json")["response_length"]["mean"]
    assert measured == clone.json("metrics/benchmark.json")["hybrid"]["response_length"]["mean"]
    clone.set_params({"base.seeds": 1})
    assert "training" not in clone.dvc("repro").stdout
    assert files_of(clone) == before
