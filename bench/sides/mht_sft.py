"""SFT steps of MHT on the reviews, full fine-tuning: one pass over the rows."""

import stages  # noqa: F401
from mht.config import HybridConfig
from mht.data.examples.example import read_examples
from mht.training.hybrid import HybridTrainer


def prepare(s):
    rows = read_examples("data/prepared/train.parquet")[: s["rows"]]
    config = HybridConfig(
        cycles=1,
        sft_steps_per_cycle=s["rows"] // s["batch"],
        ppo_steps_per_cycle=0,
        sft_batch_size=s["batch"],
        lr=1e-6,
    )
    trainer = HybridTrainer(s["model"], train_data=rows, config=config, device="cpu")
    tokens = sum(len(r.prompt_ids) + len(r.target_ids) for r in rows)
    trainer.next_step("sft")

    def once():
        for _ in range(config.sft_steps_per_cycle):
            trainer.next_step("sft")
        return {"tokens": tokens}

    return once
