"""The same PPO iterations by TRL 0.11.4; this project scores the texts, in a process of its own."""

import json
import subprocess
import time

import pyarrow.parquet
import torch
from trl_ppo import make_trainer, respond


class Scorer:
    """bench/score.py as a function."""

    def __init__(self, python):
        pipe = subprocess.PIPE
        command = [python, "bench/score.py"]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def __call__(self, what, rows, texts):
        """Scores of the responses to the rows, by "reward" or "judge"."""
        samples = [
            {"prompt": row["prompt"], "response": text, "target": row["target"]}
            for row, text in zip(rows, texts, strict=True)
        ]
        self.process.stdin.write(json.dumps({"what": what, "samples": samples}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def read(path):
    columns = ["prompt", "target", "prompt_ids"]
    return pyarrow.parquet.read_table(path, columns=columns).to_pylist()


def prepare(s):
    torch.manual_seed(s["seed"])
    trainer = make_trainer(
        s["model"],
        s["unfrozen"],
        batch_size=s["batch_size"],
        mini_batch_size=s["minibatch_size"],
        ppo_epochs=s["epochs"],
        learning_rate=s["lr"],
        adap_kl_ctrl=False,
        init_kl_coef=s["kl_coef"],
        gamma=s["gamma"],
        lam=s["lam"],
        cliprange=s["clip_range"],
        cliprange_value=s["value_clip_range"],
        vf_coef=s["vf_coef"],
        max_grad_norm=s["max_grad_norm"],
        seed=s["seed"],
    )
    # the same warm-up over optimiser steps; its own schedule would move once per iteration
    optimizer = trainer.optimizer.optimizer  # inside Accelerate's
    warm = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, step / max(s["warmup_steps"], 1))
    )
    optimizer.register_step_post_hook(lambda *_: warm.step())
    tokenizer = trainer.tokenizer
    score = Scorer(s["python"])
    train, held = read("data/prepared/train.parquet"), read("data/prepared/validation.parquet")
    order = torch.randperm(len(train)).tolist()
    done = 0

    def answer(rows):
        prompts = [torch.tensor(row["prompt_ids"]) for row in rows]
        responses = respond(
            trainer,
            prompts,
            s["batch_size"],
            s["response_tokens"],
            temperature=s["temperature"],
            eos_token_id=tokenizer.eos_token_id,
        )
        return prompts, responses, tokenizer.batch_decode(responses, skip_special_tokens=True)

    def look():
        rows = held[: s["prompts"]]
        _, responses, texts = answer(rows)
        found = score("judge", rows, texts)
        length = sum(map(len, responses)) / len(responses)
        return {"positive": sum(found) / len(found), "length": length}

    def once():
        nonlocal done
        began = time.perf_counter()
        first = done * s["batch_size"]
        rows = [train[order[i % len(order)]] for i in range(first, first + s["batch_size"])]
        prompts, responses, texts = answer(rows)
        scores = [torch.tensor(value) for value in score("reward", rows, texts)]
        stats = trainer.step(prompts, responses, scores)
        done += 1
        figures = {"seconds": time.perf_counter() - began, "kl": float(stats["objective/kl"])}
        return figures | look() if done % s["every"] == 0 else figures

    return once
