"""PPO iterations of MHT from an SFT checkpoint, with a look at held-out prompts now and then."""

import time

import torch

import stages  # noqa: F401
from mht.config import KLControl, load_config
from mht.data.examples.example import read_examples
from mht.training.hybrid import HybridTrainer


def prepare(s):
    config = load_config()
    changed = {
        "cycles": 1,
        "sft_steps_per_cycle": 0,
        "ppo_steps_per_cycle": s["iterations"],
        "kl_control": KLControl(type="fixed"),
    }
    trainer = HybridTrainer(
        s["model"],
        train_data=read_examples("data/prepared/train.parquet"),
        config=config.ppo.model_copy(update=changed),
        num_layers_unfrozen=s["unfrozen"],
        seed=s["seed"],
        device="cpu",
    )
    held = read_examples("data/prepared/validation.parquet")[: s["prompts"]]
    chance = torch.Generator().manual_seed(s["seed"])

    def look():
        rollout = trainer.responder.respond(held, chance)
        scores = config.evaluate.judge.evaluate(trainer.responder.samples(rollout, held)).score
        return {
            "positive": sum(scores) / len(scores),
            "length": float(rollout.lengths.float().mean()),
        }

    def once():
        began = time.perf_counter()
        stats = trainer.next_step("ppo")
        figures = {"seconds": time.perf_counter() - began, "kl": stats["ppo/kl/k1_nats"]}
        return figures | look() if trainer.step % s["every"] == 0 else figures

    return once
