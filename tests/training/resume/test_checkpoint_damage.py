"""Damage to checkpoints: any changed byte, lost file or state that does not fit is noticed."""

import json
import random
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from mht.training.history import History
from mht.training.resume.checkpoint import PLAIN, TENSORS, Checkpoints, sealed
from mht.training.resume.state import capture
from tests.support.jobs import PLAN, Job, Killed

MEMORY = {"type": "adaptive", "prompts": 0.5}
FILES = [(checkpoint, name) for checkpoint in (0, 1) for name in (TENSORS, PLAIN)]


class Run:
    """A killed run with its last two checkpoints, and a trainer that resumes copies of them."""

    def __init__(self, folder, model, tokenizer):
        self.folder, self.copy = folder, folder / "copy"
        self.new_trainer = Job(folder, model, tokenizer, memory=MEMORY).trainer
        self.history = History(lambda *_: None, hold=True)
        self.trainer = self.new_trainer()
        checkpoints = Checkpoints(folder / "kept", {"plan": PLAN}, every_s=0, history=self.history)
        with pytest.raises(Killed):
            self.trainer.train(PLAN, self._log, checkpoints=checkpoints)
        checkpoints._lock.lock.release()
        self.names = sorted(path.name for path in (folder / "kept").iterdir())
        self.start = fingerprint(self.new_trainer())

    def _log(self, stats, step):
        self.history(stats, step)
        if step == 6:  # the last two checkpoints are then of different steps
            raise Killed

    def fresh_copy(self):
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.folder / "kept", self.copy)
        return self.copy

    def resume(self, trainer=None):
        """Parts behind it and what the trainer then is, from the copy."""
        trainer = trainer or self.trainer
        checkpoints = Checkpoints(self.copy, {"plan": PLAN}, history=self.history)
        try:
            return checkpoints.resume(trainer), fingerprint(trainer)
        finally:
            checkpoints._lock.lock.release()

    def whole(self, which):
        """What `resume` gives where the checkpoint with this name is taken."""
        folder = self.fresh_copy()
        for name in self.names:
            if name > which:
                shutil.rmtree(folder / name)
        return self.resume()


def fingerprint(trainer):
    """All that `capture` keeps, to the bit."""
    state = capture(trainer.states)
    return save(state.tensors), json.dumps(state.plain)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model_dir, tiny_tokenizer):
    return Run(tmp_path_factory.mktemp("run"), tiny_model_dir(), tiny_tokenizer)


@pytest.fixture(scope="module")
def whole(run):
    """What a resume from each checkpoint gives, the older first."""
    return [run.whole(name) for name in run.names]


def flip_a_bit(path, position, bit):
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << bit
    path.write_bytes(data)


def check_flip(run, whole, file, position, bit):
    """A flip in the newest gives the older one; in the older one it changes nothing."""
    which, name = FILES[file]
    flip_a_bit(run.fresh_copy() / run.names[which] / name, position, bit)
    assert run.resume() == whole[0 if which == 1 else 1]


FLIPS = {
    "file": st.sampled_from(range(len(FILES))),
    "position": st.integers(0, 2**40),
    "bit": st.integers(0, 7),
}


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(**FLIPS)
def test_a_flipped_bit_is_noticed(run, whole, file, position, bit):
    check_flip(run, whole, file, position, bit)


@pytest.mark.slow
@settings(derandomize=True, database=None, deadline=None, max_examples=10_000)
@given(**FLIPS)
def test_any_flipped_bit_is_noticed(run, whole, file, position, bit):
    check_flip(run, whole, file, position, bit)


def test_every_bit_of_the_seal_and_every_kind_of_text_is_noticed(run, whole):
    """The first 100 bytes of state.json hold its hash; the last close it."""
    size = len((run.folder / "kept" / run.names[1] / PLAIN).read_bytes())
    for position in [*range(0, 100, 3), size - 2, size - 1]:
        check_flip(run, whole, 3, position, random.Random(position).randrange(8))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("name", [TENSORS, PLAIN])
def test_a_cut_file_is_noticed(run, whole, name, share):
    path = run.fresh_copy() / run.names[1] / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert run.resume() == whole[0]


def test_files_of_another_checkpoint_are_noticed(run, whole):
    for name in (TENSORS, PLAIN):
        folder = run.fresh_copy()
        shutil.copy(folder / run.names[0] / name, folder / run.names[1] / name)
        assert run.resume() == whole[0]


def test_a_renamed_checkpoint_is_noticed(run, whole, capsys):
    folder = run.fresh_copy()
    (folder / run.names[1]).rename(folder / "00000077")
    assert run.resume() == whole[0]
    assert (
        "is damaged: going on from the one before it (it was written as" in capsys.readouterr().err
    )


def test_a_checkpoint_that_was_passed_over_goes_with_the_next_write(run):
    """Otherwise it would count as the newest one for ever."""
    folder = run.fresh_copy()
    (folder / run.names[1]).rename(folder / "00000077")
    checkpoints = Checkpoints(folder, {"plan": PLAN}, history=run.history)
    assert checkpoints.resume(run.trainer) == 6
    checkpoints.write(run.trainer, 7)
    checkpoints._lock.lock.release()
    assert sorted(path.name for path in folder.iterdir()) == ["00000006", "00000007"]


def test_folders_in_place_of_files_are_noticed(run, whole):
    path = run.fresh_copy() / run.names[1] / PLAIN
    path.unlink()
    path.mkdir()
    assert run.resume() == whole[0]


# -- whole, but of something else -----------------------------------------------------------------


def rewritten(folder, change):
    """Change a checkpoint and put its hashes right."""
    import hashlib

    plain = json.loads((folder / PLAIN).read_bytes())["state"]
    tensors = load((folder / TENSORS).read_bytes())
    change(plain, tensors)
    data = save(tensors)
    (folder / TENSORS).write_bytes(data)
    plain["tensors"] = hashlib.sha256(data).hexdigest()
    (folder / PLAIN).write_bytes(sealed(json.dumps(plain).encode()))


def without(key):
    return lambda plain, tensors: plain.pop(key, None)


def wider(plain, tensors):
    name = next(name for name in tensors if name.startswith("model."))
    tensors[name] = torch.zeros(3, *tensors[name].shape)


def one_number(plain, tensors):
    """It could be broadcast."""
    name = next(name for name in tensors if name.startswith("model."))
    tensors[name] = torch.zeros(1)


def more_weights(plain, tensors):
    tensors["model.of_another"] = torch.zeros(2)


def another_reward(plain, tensors):
    plain["reward"] = {".children": {"mean": 1}}


KEYS = ("model", "value_head", "optimizer", "scheduler", "algorithms.ppo", "random", "practice",
        "reward", "mix", "trainer", "history", "done")  # fmt: skip
MISFITS = {f"no {key}": without(key) for key in KEYS}
MISFITS |= {f.__name__: f for f in (wider, one_number, more_weights, another_reward)}
MISFITS["no memory"] = lambda plain, tensors: plain["practice"].pop("memory", None)
MISFITS["no positions"] = lambda plain, tensors: plain["practice"].update(positions=3)
MISFITS["no list of rows"] = lambda plain, tensors: plain["history"].update(rows=[1])


@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS.keys())
def test_a_state_that_does_not_fit_leaves_no_trace(run, whole, change, capsys):
    folder = run.fresh_copy()
    rewritten(folder / run.names[1], change)
    assert run.resume() == whole[0]
    for name in run.names:
        rewritten(folder / name, change)
    capsys.readouterr()
    run.history.load_state_dict({"rows": []})
    assert run.resume(trainer := run.new_trainer()) == (0, run.start)
    assert trainer.step == 0 and run.history.rows == []
    assert capsys.readouterr().err.splitlines()[-1].endswith("beginning at the start")
