"""The same steps by TRL's SFTTrainer: prompts and completions, the loss on the completion."""

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer


def prepare(s):
    data = load_dataset("parquet", data_files="data/prepared/train.parquet", split="train")
    data = data.select(range(s["rows"])).select_columns(["prompt", "target"])
    data = data.rename_column("target", "completion")
    model = AutoModelForCausalLM.from_pretrained(s["model"], dtype=torch.float32)

    def trainer(steps):
        config = SFTConfig(
            output_dir=".mht/bench/trl_sft",
            per_device_train_batch_size=s["batch"],
            max_steps=steps,
            learning_rate=1e-6,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        )
        return SFTTrainer(model, args=config, train_dataset=data)

    trainer(1).train()
    whole = trainer(s["rows"] // s["batch"])
    tokens = sum(len(ids) for ids in whole.train_dataset["input_ids"])

    def once():
        whole.train()
        return {"tokens": tokens}

    return once
