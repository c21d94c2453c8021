"""Several processes make the steps of one; a stage starts them, and ends as they do."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from mht.config import load_config
from mht.core.errors import ConfigError
from mht.devices.base import indivisible
from mht.devices.processes import buckets
from mht.devices.sharded import plugin_problems
from mht.generation.sampling.draw import SharedGenerator
from mht.models.loading import load_causal_lm
from mht.pipeline import launch
from tests.support import devices_worker as worker
from tests.support.devices import same_figures, stage_clone, train_stage

pytest_plugins = ["tests.support.devices"]
ROOT = Path(__file__).parents[2]
WORKERS = ROOT / "tests/support"
REPLAY = {"type": "adaptive", "prompts": 0.0, "rehearsal": 0.0, "replay": {"share": 0.5}}
RUNS = {
    "top": {"unfrozen": 1, "memory": REPLAY},
    "top_killed": {"unfrozen": 1, "memory": REPLAY},
    "micro": {
        "microbatch_size": 1, "minibatch_size": 8, "epochs": 4, "target_kl": 1e-9, "ent_coef": 0.01,
    },
    "memory": {"unfrozen": 1, "microbatch_size": 1, "memory": {"type": "adaptive", "capacity": 20}},
    "ridge": {"unfrozen": 1, "value_head": {"type": "ridge", "shrinkage": 20.0}},
    "prompts": {  # the second of three is answered by both processes
        "unfrozen": 1, "batch_size": 12, "responses_per_prompt": 4,
        "value_head": {"type": "ridge", "shrinkage": 20.0},
    },
    "fsdp_killed": {"memory": REPLAY},
}  # fmt: skip
FSDP = {
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}


@pytest.fixture(scope="module")
def two(tmp_path_factory, tiny_model_dir):
    """What two processes made of all the runs."""
    job = {"model": str(tiny_model_dir("gpt2")), "out": str(tmp_path_factory.mktemp("two"))}
    said = worker.run_in_two({**job, "runs": RUNS}, **FSDP)
    assert "training" not in said[1], "the main process alone shows its progress"
    return SimpleNamespace(job=job, out=Path(job["out"]))


def made_by(two, run, rank=0):
    """The weights and the figures that a run left in one of the two processes."""
    file = two.out / f"{run}-{rank}"
    return load_file(f"{file}.safetensors"), json.loads(Path(f"{file}.json").read_text())


@pytest.mark.parametrize("run", ["top", "micro", "ridge", "prompts", "fsdp_killed"])
def test_two_processes_make_the_steps_of_one(two, run):
    trainer, figures = worker.train(two.job, **RUNS[run])
    ours = worker.weights(trainer)
    theirs, their_figures = made_by(two, run)
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)
    same_figures(their_figures, figures[-len(their_figures) :])
    moved = worker.weights(worker.trainer_of(two.job, **RUNS[run]))
    assert max((ours[k] - moved[k]).abs().max() for k in ours) > 1e-3


@pytest.mark.parametrize("run", RUNS)
def test_the_processes_stay_alike(two, run):
    (first, figures), (second, others) = made_by(two, run, 0), made_by(two, run, 1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    steps = [{k: v for k, v in row.items() if "/time/" not in k} for row in figures]
    assert steps == [{k: v for k, v in row.items() if "/time/" not in k} for row in others]


def test_responses_end_at_different_times_and_epochs_stop_early(two):
    rows = made_by(two, "top")[1]
    shares = [row["ppo/response/ended_share"] for row in rows if "ppo/score/mean" in row]
    assert all(share > 0 for share in shares)
    ppo = [row for row in made_by(two, "micro")[1] if "ppo/optim/steps" in row]
    assert all(row["ppo/optim/steps"] == 2 for row in ppo)


def test_the_processes_replay(two):
    for run in ("top", "fsdp_killed"):
        rows = [row["ppo/replay/rows"] for row in made_by(two, run)[1] if "ppo/kl/coef" in row]
        assert rows[-2:] == [4, 4]


def test_a_killed_run_goes_on_bitwise(two):
    whole, resumed = made_by(two, "top")[0], made_by(two, "top_killed")[0]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_sharded_model_is_saved_whole(two):
    saved = load_causal_lm(two.out / "saved")
    trained = made_by(two, "fsdp_killed")[0]
    for name, value in saved.named_parameters():
        torch.testing.assert_close(value.detach(), trained[name], atol=0, rtol=0)


def test_a_mistake_ends_every_process(two):
    main, other = (json.loads((two.out / f"errors-{r}.json").read_text()) for r in (0, 1))
    assert main["reward"] == ["UserError", "reward (broken): the service is down"]
    assert other["reward"][0] == "Elsewhere"
    assert main["ratio"][0] == other["ratio"][0] == "RatioError"
    assert main["ratio"] == other["ratio"]
    assert main["size"] == other["size"]
    line = "minibatch_size: 3 can't be split among 2 processes: set a multiple of 2"
    assert line in main["size"][1]
    assert "model.num_layers_unfrozen: under FSDP set 'all'" in main["frozen"][1]
    assert "ppo.value_head.type: under FSDP set linear or mlp" in main["fitted"][1]


# -- parts ------------------------------------------------------------------------------------


def test_shared_numbers_are_those_of_one_process():
    """Two processes, of which the first has 2, 1 and no rows left, the second 3, 3 and 1."""
    going = [(2, 3), (1, 3), (0, 1), (0, 0)]
    alone = torch.Generator().manual_seed(5)
    wanted = [torch.rand(sum(n), 1, dtype=torch.float64, generator=alone) for n in going[:3]]
    for rank in (0, 1):
        generator = torch.Generator().manual_seed(5)
        turns = iter(going)

        def each(own, rank=rank, turns=turns):
            counts = next(turns)
            assert counts[rank] == own
            return list(counts)

        shared = SharedGenerator(generator, rank, each)
        own = [shared.uniform(n[rank]) for n in going[:3] if n[rank]]
        for numbers, all_numbers, n in zip(own, wanted, going, strict=False):
            first = n[0] if rank else 0
            assert torch.equal(numbers, all_numbers[first : first + n[rank]])
        shared.finish()
        assert torch.equal(generator.get_state(), alone.get_state())


def test_buckets_hold_every_tensor_once(monkeypatch):
    monkeypatch.setattr("mht.devices.processes.BUCKET", 10)
    sizes = [(4, torch.float32), (5, torch.float32), (3, torch.float32), (2, torch.bfloat16)]
    tensors = [torch.zeros(n, dtype=dtype) for n, dtype in [*sizes, (30, torch.bfloat16)]]
    found = [[t.numel() for t in bucket] for bucket in buckets(tensors)]
    assert found == [[4, 5], [3], [2], [30]]


def test_sizes_that_can_not_be_split():
    assert indivisible({"a.b": 6, "c": 8}, 4) == [
        "a.b: 6 can't be split among 4 processes: set a multiple of 4"
    ]


def test_a_wider_rollout_is_the_same_rollout():
    from mht.generation.sampling.rollout import widened
    from tests.support.training import PAD, rollout_of

    narrow = rollout_of([[5, 6]], [[7, 2]])
    wide = widened(narrow, right=2, pad_id=PAD)
    assert wide.response_ids.tolist() == [[7, 2, PAD, PAD]]
    assert wide.response_mask.tolist() == [[True, True, False, False]]
    assert widened(narrow, right=0, pad_id=PAD).response_ids.tolist() == [[7, 2]]


def test_settings_of_fsdp_that_can_not_be_had():
    from accelerate.utils import FullyShardedDataParallelPlugin

    right = {"fsdp_version": 2, "cpu_ram_efficient_loading": False}
    made = FullyShardedDataParallelPlugin(auto_wrap_policy="TRANSFORMER_BASED_WRAP", **right)
    assert list(plugin_problems(made)) == []
    other = FullyShardedDataParallelPlugin(
        fsdp_version=2, cpu_ram_efficient_loading=True, auto_wrap_policy="SIZE_BASED_WRAP"
    )
    loading, wrapping = plugin_problems(other)
    assert "set fsdp_cpu_ram_efficient_loading: false" in loading
    assert "set fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP" in wrapping


# -- starting ---------------------------------------------------------------------------------


CONFIG = load_config(ROOT / "params.yaml")


def refused(path):
    with pytest.raises(ConfigError) as caught:
        launch.processes(path, CONFIG)
    return caught.value.problems


@pytest.mark.parametrize("name", ["cpu2", "multi_gpu", "fsdp", "deepspeed"])
def test_the_configurations_are_accelerates(name, monkeypatch):
    from accelerate.commands.config.config_args import load_config_from_file

    monkeypatch.chdir(ROOT)
    path = f"configs/accelerate/{name}.yaml"
    read = load_config_from_file(path)
    monkeypatch.setattr(
        "mht.pipeline.launch.find_spec", lambda package: package
    )  # installed or not
    assert launch.processes(path, CONFIG) == read.num_processes > 1


def test_mistakes_have_their_path(accelerate_files):
    assert refused("else.yaml")[0].startswith("base.accelerate: else.yaml is not in configs/")
    assert "no such file; there is nothing" in refused("configs/accelerate/none.yaml")[0]
    assert "num_processes 0 does not fit" in refused(accelerate_files(num_processes=0))[0]
    path = accelerate_files(distributed_type="MULTI_CPU")
    assert "distributed_type 'MULTI_CPU'" in refused(path)[0]
    assert "mixed_precision 'bf16'" in refused(accelerate_files(mixed_precision="bf16"))[0]
    assert "num_machines 2" in refused(accelerate_files(num_machines=2))[0]
    problems = refused(accelerate_files(num_processes=5))
    line = f"ppo.minibatch_size: {CONFIG.ppo.minibatch_size} can't be split among 5"
    assert any(p.startswith(line) for p in problems)
    assert any(p.startswith("sft.batch_size: 16 can't be split") for p in problems)
    assert launch.processes(accelerate_files(distributed_type="NO", num_processes=1), CONFIG) == 1


@pytest.fixture
def as_stage(monkeypatch):
    """This process stands for a stage's; its signal handlers and environment come back."""
    main = SimpleNamespace(__spec__=SimpleNamespace(name="launched_stage"))
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["launched_stage"])
    monkeypatch.setenv("PYTHONPATH", f"{WORKERS}{os.pathsep}{ROOT}")
    monkeypatch.setenv(launch.LAUNCHED, "1")
    kinds = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {kind: signal.getsignal(kind) for kind in kinds}
    yield
    for kind, handler in before.items():
        signal.signal(kind, handler)


def test_a_process_that_fails_ends_the_others(accelerate_files, as_stage):
    path, began = accelerate_files(), time.monotonic()
    with pytest.raises(launch.Failed, match=r"^ppo: the disk is full$") as caught:
        launch.start_again(path)
    assert caught.value.code == 2
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_a_stage_on_two_processes_writes_what_it_writes_on_one(tmp_path, tiny_model_dir):
    import sqlite3

    clone = stage_clone(tmp_path, tiny_model_dir)
    made = [train_stage(clone, file) for file in (None, "configs/accelerate/cpu2.yaml")]
    torch.testing.assert_close(*made, atol=1e-5, rtol=0)
    with sqlite3.connect(clone.path / "mlflow.db") as store:
        states = [row[0] for row in store.execute("select status from runs")]
    assert states == ["FINISHED", "FINISHED"], "the main process alone has a run"
    clone.set_params({"ppo.ratio_tolerance": 1e-12})
    failed = clone.run(sys.executable, "-m", "stages.ppo", "hybrid", code=2).stderr
    assert failed.count("max |ratio - 1|") == 1 and "Traceback" not in failed
