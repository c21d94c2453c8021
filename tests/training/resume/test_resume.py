"""Exact resume: a killed run ends with the bytes of the uninterrupted one, and loses no step."""

import errno
import os
import random
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mht.rewards import Reward
from mht.training.resume.checkpoint import PLAIN, TENSORS, CheckpointError, Checkpoints
from mht.training.resume.state import State
from mht.training.schedule import as_plan, schedule
from tests.support.jobs import PLAN, Job, ends_the_same
from tests.support.training import TokenShare

PARTS = len(schedule(as_plan(PLAN)))


NOISES = {
    "python": random.random,
    "numpy": np.random.rand,
    "torch": lambda: torch.rand(()).item(),
}


class Noise(Reward):
    """A reward that does not look at the text."""

    type: str = "noise"
    source: str = "python"

    def score(self, samples):
        return [float(NOISES[self.source]()) for _ in samples]


@pytest.fixture
def job(tmp_path, tiny_model_dir, tiny_tokenizer):
    def make(name="run", **changes):
        return Job(tmp_path / name, tiny_model_dir(), tiny_tokenizer, **changes)

    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_model_dir, tiny_tokenizer):
    """The outcome of the run that is never killed."""
    return Job(tmp_path_factory.mktemp("whole"), tiny_model_dir(), tiny_tokenizer).run()


def test_a_run_killed_anywhere_ends_the_same(job):
    ends_the_same(job, *range(1, PARTS + 1))


def test_a_full_disk_costs_checkpoints_and_no_training(job, whole, monkeypatch, capsys):
    from mht.training.resume import checkpoint

    real, free = checkpoint._write, 4  # files that fit on the disk: two checkpoints

    def write(path, data):
        nonlocal free
        free -= 1
        if free < 0:
            path.write_bytes(data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data)

    full = job("full")
    monkeypatch.setattr(checkpoint, "_write", write)
    assert full.run() == whole
    err = capsys.readouterr().err
    assert err.count("can't be written (No space left on device)") == 1
    assert sorted(p.name for p in full.folder.iterdir()) == ["00000001", "00000002"]
    assert full.told == sorted(full.told, key=lambda row: row[0]) and full.told


def test_a_run_killed_again_and_again_ends_the_same(job, whole):
    broken = job("broken")
    for _ in range(PARTS - 1):
        assert broken.run(kill_at=2) is None  # one part further than the time before
    assert broken.run() == whole


@pytest.mark.parametrize(
    "changes",
    [
        {"unfrozen": "all"},
        {"optimizer": {"type": "sgd", "momentum": 0.9}},
        {"optimizer": {"type": "adafactor"}},
        {"optimizer": {"type": "lion", "decay_norms_and_biases": False, "weight_decay": 0.1}},
        {"optimizer": {"type": "rmsprop", "momentum": 0.5}},
        {"scheduler": {"type": "cosine", "warmup_steps": 1}},
        {"scheduler": {"type": "cosine_with_restarts", "warmup_ratio": 0.1, "num_cycles": 3}},
        {"dtype": "bfloat16"},
        {"dtype": "float16", "unfrozen": "all"},
        {"lora": {"r": 2}},
        {"lora": {"r": 2}, "unfrozen": "all", "value_head": {"type": "mlp", "detach": True}},
        {"value_head": {"type": "branch", "num_layers": 1}},
        {"value_head": {"type": "branch", "num_layers": 1}, "dtype": "bfloat16"},
        {"value_head": {"type": "ridge"}},
        {"lora": {"r": 2}, "dtype": "bfloat16"},
        {"target_kl": 1e-9, "epochs": 3},
    ],
    ids=str,
)
def test_whatever_trains_is_in_the_state(job, changes):
    ends_the_same(lambda name: job(name, **changes), 5)


def test_checkpoints_of_16_bits_hold_the_masters(job):
    """Steps too small for 16 bits are in it, and what computes is the masters rounded."""
    broken = job("broken", dtype="bfloat16", lr=1e-6)
    broken.run(kill_at=5)
    state = load_file(max(broken.folder.iterdir()) / TENSORS)
    trainer = broken.trainer()
    masters = trainer.masters.state_dict(trainer.policy.model)
    for name, master in masters.items():
        assert state[f"model.{name}"].dtype == torch.float32
        assert not torch.equal(state[f"model.{name}"], master.detach()), "it has moved"
    checkpoints = broken.checkpoints()
    checkpoints.resume(trainer)
    checkpoints._lock.lock.release()
    for name, parameter in trainer.policy.model.named_parameters():
        if name in masters:
            assert torch.equal(masters[name].detach(), state[f"model.{name}"])
            assert torch.equal(parameter.detach(), state[f"model.{name}"].bfloat16())


def test_a_checkpoint_of_adapters_is_small(job):
    """The adapters and the value head; the weights below them are not in it."""
    broken = job(lora={"r": 2})
    assert broken.run(kill_at=5) is None
    tensors = load_file(max(broken.folder.iterdir()) / TENSORS)
    model = {name for name in tensors if name.startswith("model.")}
    assert model and all(".lora_A." in n or ".lora_B." in n for n in model)


def test_further_references_need_no_state(job, tiny_model_dir):
    reference = {"model": str(tiny_model_dir(seed=1)), "kl_coef": 0.1, "where": {"number": [0, 3]}}
    ends_the_same(lambda name: job(name, references={"other": reference}), 5)


@pytest.mark.parametrize("source", NOISES)
def test_a_reward_may_draw_from_any_generator(job, source):
    """Somebody's reward with Python's, numpy's or torch's global random numbers goes on exactly."""
    outcomes = []
    for name, kill_at in (("whole", None), ("broken", 6)):
        each = job(name, reward=Noise(source=source))
        random.seed(1)
        np.random.seed(1)
        if kill_at:
            assert each.run(kill_at=kill_at) is None
            for draw in NOISES.values():  # a new process would begin elsewhere
                draw()
        outcomes.append(each.run())
    assert outcomes[0] == outcomes[1]


def test_the_tracker_hears_of_each_step_once(job):
    """Points that come twice have the same time, so that a store takes them for one."""
    broken = job()
    broken.run(kill_at=4)
    broken.run(kill_at=3)
    broken.run()
    points = {(step, at_ms, tuple(stats)) for step, at_ms, stats in broken.told}
    assert len(broken.told) > len(points), "nothing was sent again"
    curves = [(step, name) for step, _, names in points for name in names]
    assert len(curves) == len(set(curves))
    assert {step for step, _ in curves} == set(range(7))


# -- damage -----------------------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path, place=-1):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "tensors cut": lambda folder: cut(folder / TENSORS),
    "tensors changed": lambda folder: flip(folder / TENSORS),
    "no tensors": lambda folder: (folder / TENSORS).unlink(),
    "plain changed": lambda folder: flip(folder / PLAIN, -1000),
    "plain cut": lambda folder: cut(folder / PLAIN),
    "plain empty": lambda folder: (folder / PLAIN).write_bytes(b""),
    "plain of another kind": lambda folder: (folder / PLAIN).write_text("[1]"),
    "nothing in it": lambda folder: [f.unlink() for f in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_gives_way_to_the_one_before(job, whole, capsys, damage):
    broken = job("broken")
    broken.run(kill_at=5)
    newest = max(broken.folder.iterdir())
    damage(newest)
    capsys.readouterr()
    assert broken.run() == whole
    said = capsys.readouterr()
    assert f"{newest} is damaged: going on from the one before it" in said.err
    assert "resumed after step 2" in said.out


def test_without_a_whole_checkpoint_the_run_begins_again(job, whole, capsys):
    broken = job("broken")
    broken.run(kill_at=4)
    for folder in broken.folder.iterdir():
        cut(folder / TENSORS)
    assert broken.run() == whole
    assert capsys.readouterr().err.count("is damaged") == 2


def test_a_half_written_checkpoint_is_none(job, whole):
    broken = job("broken")
    broken.run(kill_at=4)
    newest = max(broken.folder.iterdir())
    shutil.copytree(newest, broken.folder / ".00000009")
    (broken.folder / ".00000009" / PLAIN).unlink()
    assert broken.run() == whole


# -- whose checkpoint -------------------------------------------------------------------------


def test_another_runs_checkpoint_is_refused_with_the_difference(job):
    broken = job()
    broken.run(kill_at=4)
    theirs = Checkpoints(broken.folder, {"plan": [[5, 5]], "lr": 1.0})
    with pytest.raises(CheckpointError) as caught:
        theirs.resume(broken.trainer())
    assert "lr: None there, 1.0 here" in str(caught.value)
    assert "plan: [[2, 1], [1, 2]] there, [[5, 5]] here" in str(caught.value)


def test_two_processes_do_not_share_a_folder(job):
    first = job().checkpoints()
    with pytest.raises(CheckpointError, match="another process"):
        job().checkpoints()
    first.clear()
    job().checkpoints().clear()


# -- files ------------------------------------------------------------------------------------


def test_checkpoints_are_two_and_need_no_pickle(job):
    broken = job()
    broken.run(kill_at=6)
    kept = sorted(broken.folder.iterdir())
    assert [folder.name for folder in kept] == ["00000004", "00000005"]
    assert {f.name for folder in kept for f in folder.iterdir()} == {TENSORS, PLAIN}


def test_a_finished_run_leaves_nothing(job):
    done = job()
    done.run()
    checkpoints = done.checkpoints()
    checkpoints.clear()
    assert list(done.folder.parent.glob(f"{done.folder.name}*")) == []


def test_every_s_spaces_checkpoints(job, tmp_path):
    rare = Checkpoints(tmp_path / "rare", every_s=3600)
    job().trainer().train(PLAN, checkpoints=rare)
    assert not (tmp_path / "rare").exists()


def test_names_of_a_state_do_not_mix():
    state = State()
    state.put("a.1", {"x": torch.ones(1), "n": 3})
    state.put("a.10", {"x": torch.zeros(1)})
    assert state.get("a.1") == {"n": 3, "x": torch.ones(1)}


def test_the_reward_below_a_function_has_no_state(job):
    """A plain function as reward is the user's own business."""
    trainer = job(reward=TokenShare()).trainer()
    trainer.reward = lambda response, target, prompt, item: 0.0
    checkpoints = job("function").checkpoints()
    checkpoints.write(trainer, 1)
    checkpoints.resume(trainer)
