"""A PPO iteration of MHT: sample, score, learn."""

import time

import torch

import stages  # noqa: F401 - the process as a stage of the pipeline sets it up
from mht.algorithms.batch import Batch, Rollouts
from mht.config import HybridConfig
from mht.rewards.text.surface import LengthWindow
from mht.training.hybrid import HybridTrainer


def prepare(s):
    config = HybridConfig(
        cycles=1,
        sft_steps_per_cycle=0,
        ppo_steps_per_cycle=1,
        reward=LengthWindow(min=1, max=2),
        batch_size=s["batch"],
        minibatch_size=s["minibatch"],
        epochs=s["epochs"],
        response_tokens=s["response"],
        lr=1e-6,
    )
    trainer = HybridTrainer(
        s["model"], config=config, num_layers_unfrozen=s["unfrozen"], device="cpu"
    )
    trainer.responder.eos_ids = set()  # every response has its full length, on both sides
    generator = torch.Generator().manual_seed(0)

    top = trainer.policy.model.config.vocab_size

    def once():
        prompts = torch.randint(100, top, (s["batch"], s["prompt"]), generator=generator)
        mask = torch.ones_like(prompts, dtype=torch.bool)
        began = time.perf_counter()
        rollout = trainer.responder.draw(prompts, mask, trainer.generator)
        sampled = time.perf_counter() - began
        scores = torch.rand(s["batch"], generator=generator).tolist()
        batch = Batch(rollouts=Rollouts(rollout, lambda: scores))
        stats = trainer.ppo.step(batch).stats
        phases = {name: stats[f"time/{name}_s"] for name in ("assess", "update")}
        return {
            "tokens": int(rollout.lengths.sum()),
            "updates": stats["optim/steps"],
            "phases": {"sample": sampled} | phases,
        }

    once()
    return once
