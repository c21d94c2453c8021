"""A training run that a test kills and begins again."""

import hashlib
import json
import multiprocessing
import os
import signal

from mht.models.loading import load_causal_lm
from mht.rewards import make_reward
from mht.training.history import History
from mht.training.hybrid import HybridTrainer
from mht.training.resume.checkpoint import Checkpoints
from mht.training.resume.state import capture
from tests.support.training import STATEFUL, examples, hybrid_config

PLAN = [(2, 1), (1, 2)]
SETTINGS = {
    "reward": {
        "type": "length_window",
        "min": 1,
        "max": 3,
        "postprocess": [{"type": "ema_normalize", "decay": 0.9}],
    },
    **STATEFUL,
}


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


def power_off():
    """End a run without ending the process."""
    raise Killed


class Job:
    """A training run that may be killed and begun again.

    Args:
        folder: of its checkpoints.
        model: a model's folder, or a function that makes the model.
        tokenizer: the model's.
        **changes: settings; ``plan`` is the schedule's, and ``unfrozen``, ``dtype`` and ``lora``
            are the policy's.

    Attributes:
        told: every point that the tracker was given, in order.
        last: the trainer that was made last.
    """

    def __init__(self, folder, model, tokenizer, **changes):
        self.folder, self.model, self.tokenizer = folder, model, tokenizer
        self.changes = {"unfrozen": 1, **changes}
        self.plan = self.changes.pop("plan", PLAN)
        self.told = []

    def trainer(self):
        changes = dict(self.changes)
        unfrozen, dtype = changes.pop("unfrozen"), changes.pop("dtype", "float32")
        lora = changes.pop("lora", None)
        model = self.model() if callable(self.model) else self.model
        if dtype == "float16":  # by name it is for GPUs, but a loaded model may have it
            model = load_causal_lm(model, dtype=dtype)
        reward = make_reward(SETTINGS["reward"])
        config = hybrid_config(**SETTINGS | {"reward": reward} | changes)
        self.last = HybridTrainer(
            model,
            self.tokenizer,
            examples(self.tokenizer, 11),
            config=config,
            num_layers_unfrozen=unfrozen,
            lora=lora,
            seed=3,
            device="cpu",
            dtype=dtype,
        )
        return self.last

    def checkpoints(self, history=None):
        return Checkpoints(self.folder, {"plan": self.plan}, every_s=0, history=history)

    def run(self, *, kill_at=None, die=power_off):
        """Train to the end, or to the part of the schedule after which the power goes off.

        ``die`` is what happens then.
        """
        history = History(
            lambda stats, step, at_ms: self.told.append((step, at_ms, stats)), hold=True
        )
        trainer = self.trainer()
        checkpoints = self.checkpoints(history)
        parts = 0

        def log(stats, step):
            nonlocal parts
            history(stats, step)
            parts += 1
            if parts == kill_at:
                die()

        try:
            trainer.train(self.plan, log, lambda cycle: {"validation/cycle": cycle}, checkpoints)
        except Killed:
            return None
        finally:
            checkpoints._lock.lock.release()  # as the end of the process does
        history.publish()
        return outcome(trainer, history)


def ends_the_same(make, *kills):
    """The outcome of a run, which is also that of runs that are killed and begun again.

    Args:
        make: makes a job in a folder of the given name.
        *kills: for each killed run, the part of the schedule after which it is killed.
    """
    whole = make("whole").run()
    for part in kills:
        broken = make(f"killed after {part}")
        assert broken.run(kill_at=part) is None
        assert broken.run() == whole, f"killed after part {part}"
    return whole


def run_and_kill(job, kill_at):
    """Train in a process of its own, which a SIGKILL ends; its exit code."""
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(job, kill_at))
    process.start()
    process.join()
    return process.exitcode


def _run(job, kill_at):
    job.run(kill_at=kill_at, die=lambda: os.kill(os.getpid(), signal.SIGKILL))


def outcome(trainer, history):
    """Everything a run leaves, as text that differs if a bit does."""
    weights = trainer.policy.model.state_dict()
    state = capture({name: part for name, part in trainer.states.items() if name != "random"})
    rows = [
        (row.step, {k: v for k, v in row.stats.items() if "/time/" not in k})
        for row in history.rows
    ]
    return hash_of(weights), rows, hash_of(state.tensors), json.dumps(state.plain, default=str)


def hash_of(tensors):
    """A hash of tensors by name."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(name.encode() + value.detach().double().numpy().tobytes())
    return found.hexdigest()
