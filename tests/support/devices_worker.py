"""What test_devices.py runs in several processes at once; the job is JSON, an argument.

Each process is started with the environment that `accelerate launch` gives, makes the same calls as
the others and leaves what came of them as JSON and safetensors.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from mht.core.errors import UserError
from mht.devices.sharded import gather
from mht.models.loading import load_tokenizer
from mht.rewards import Reward, make_reward
from mht.training.hybrid import HybridTrainer
from mht.training.resume.checkpoint import Checkpoints
from mht.training.validation import Validation
from tests.support.jobs import Killed
from tests.support.training import STATEFUL, examples, hybrid_config

WORKERS = Path(__file__).parent
ROOT = WORKERS.parents[1]
PLAN = [(2, 1), (1, 2)]
ENDS = range(4, 60)  # tokens that end a response, so that responses end at different times
SETTINGS = {
    **STATEFUL,
    "response_tokens": 8,
    "lr": 3e-4,
    # the gradient of a key's bias is 0 but for rounding, which Adam without an eps makes a step of
    "optimizer": {"type": "adamw", "eps": 1e-4},
}


def run_in_two(job, **env):
    """Run a job in two processes with more in their environment; what each said on stderr."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **env}
    common |= {"PYTHONPATH": f"{WORKERS}{os.pathsep}{ROOT}"}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, json.dumps(job)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    return said


class Broken(Reward):
    """A reward whose service is down."""

    type: str = "broken"

    def score(self, samples):
        raise UserError("the service is down")


def trainer_of(job, *, unfrozen="all", reward=None, **changes):
    """The same trainer in one process and in several."""
    wanted = {
        "type": "length_window",
        "min": 1,
        "max": 3,
        "postprocess": [{"type": "ema_normalize", "decay": 0.9}],
    }
    tokenizer = load_tokenizer(job["model"])
    made = HybridTrainer(
        job["model"],
        tokenizer,
        examples(tokenizer, 11),
        config=hybrid_config(**SETTINGS | {"reward": reward or make_reward(wanted)} | changes),
        num_layers_unfrozen=unfrozen,
        seed=3,
        device="cpu",
    )
    made.responder.eos_ids = set(ENDS)
    return made


def weights(trainer):
    """All that trains, by name, whole."""
    policy = trainer.policy
    named = [*policy.model.named_parameters(), *policy.value_head.named_parameters()]
    return {name: gather(p).clone() for name, p in named if p.requires_grad}


def train(job, **settings):
    """A short run; the trainer after it and every step's figures."""
    trainer = trainer_of(job, **settings)
    figures = []
    look = validation(job, trainer)
    trainer.train(PLAN, lambda stats, step: figures.append(stats), look)
    return trainer, figures


def validation(job, trainer):
    """What is called after each cycle."""
    shown = examples(trainer.tokenizer, 5)
    parts = (trainer.policy, trainer.responder, shown, trainer.reward)
    made = Validation(*parts, seed=0, batch_size=4)
    return lambda cycle: trainer.devices.look(made.figures)


def train_killed(job, **settings):
    """The same run, killed after its third step and begun again."""
    folder = Path(job["out"], "checkpoints")

    def kill(stats, step):
        if step == 4:
            raise Killed

    first = Checkpoints(folder, every_s=0)
    try:
        trainer = trainer_of(job, **settings)
        trainer.train(PLAN, kill, validation(job, trainer), checkpoints=first)
    except Killed:
        if first._lock is not None:
            first._lock.lock.release()  # as the end of the process does
    again = Checkpoints(folder, every_s=0)
    trainer = trainer_of(job, **settings)
    figures = []
    look = validation(job, trainer)
    trainer.train(PLAN, lambda stats, step: figures.append(stats), look, checkpoints=again)
    trainer.save(Path(job["out"], "saved"))
    again.clear()
    return trainer, figures


def error_of(job, **settings):
    """The error that this process's first PPO step or its trainer ends with."""
    try:
        trainer_of(job, **settings).next_step("ppo")
    except UserError as error:
        return [type(error).__name__, str(error)]
    return None


def main(job):
    """All runs of a job, one after the other."""
    torch.set_num_threads(1)
    out, rank = Path(job["out"]), os.environ["RANK"]
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import deepspeed

        # gloo alone: its own exchange on a CPU would first be compiled, for a minute
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    errors = {
        "reward": error_of(job, reward=Broken()),
        "ratio": error_of(job, ratio_tolerance=1e-30),
        "size": error_of(job, batch_size=6, minibatch_size=3),
    }
    errors |= {name: error_of(job, **settings) for name, settings in job.get("errors", {}).items()}
    for name, settings in job["runs"].items():
        fsdp, killed = name.startswith("fsdp"), name.endswith("killed")
        os.environ["ACCELERATE_USE_FSDP"] = str(fsdp).lower()
        trainer, figures = (train_killed if killed else train)(job, **settings)
        found = weights(trainer)
        file = out / f"{name}-{rank}"
        save_file(found, f"{file}.safetensors")
        Path(f"{file}.json").write_text(json.dumps(figures))
    # the last run was sharded
    errors["frozen"] = error_of(job, unfrozen=1)
    errors["fitted"] = error_of(job, value_head={"type": "ridge"})
    (out / f"errors-{rank}.json").write_text(json.dumps(errors))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
