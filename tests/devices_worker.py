"""What tests/test_devices.py runs in several processes at once: ``python tests/devices_worker.py``.

Started as `accelerate launch` starts processes, by their environment; every process makes the same
calls. The main process leaves what came of it as JSON and safetensors.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from training_fixtures import examples, hybrid_config

from mht.models.loading import load_tokenizer
from mht.trainers.hybrid import HybridTrainer

PLAN = [(2, 2), (1, 1)]
SETTINGS = {
    "kl_control": {"type": "adaptive", "target": 0.1, "horizon": 20},
    "score_norm": True,
    "scheduler": {"type": "linear", "warmup_steps": 2},
    "cycles": 2,
    "sft_steps_per_cycle": 2,
    "ppo_steps_per_cycle": 2,
    "response_tokens": 8,
    "ent_coef": 0.01,
}


def trainer_of(folder, unfrozen, **changes):
    """A trainer that is the same in one process and in several."""
    from mht.rewards import make_reward

    reward = {
        "type": "length_window",
        "min": 1,
        "max": 5,
        "postprocess": [{"type": "ema_normalize", "decay": 0.9}],
    }
    tokenizer = load_tokenizer(folder)
    return HybridTrainer(
        str(folder),
        tokenizer,
        examples(tokenizer, 11),
        config=hybrid_config(**SETTINGS | {"reward": make_reward(reward)} | changes),
        num_layers_unfrozen=unfrozen,
        seed=3,
        device="cpu",
    )


def weights(trainer):
    """All that trains, by name."""
    policy = trainer.policy
    found = {n: p for n, p in policy.model.named_parameters() if p.requires_grad}
    found |= dict(policy.value_head.named_parameters())
    return {name: p.detach().clone().contiguous() for name, p in found.items()}


def train(folder, unfrozen, **changes):
    """A short run; the trainer after it and every step's figures."""
    trainer = trainer_of(folder, unfrozen, **changes)
    figures = []
    trainer.train(PLAN, lambda stats, step: figures.append(stats))
    return trainer, figures


def main(job: dict) -> None:
    torch.set_num_threads(1)
    out = Path(job["out"])
    for name, (unfrozen, changes) in job["runs"].items():
        trainer, figures = train(job["model"], unfrozen, **changes)
        file = out / f"{name}-{trainer.devices.rank}"
        save_file(weights(trainer), f"{file}.safetensors")
        Path(f"{file}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
