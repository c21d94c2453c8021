"""Tiny models, prompts and rollouts for the tests of the training core."""

import torch

from mht.config import HybridConfig
from mht.core.records import Rollout
from mht.data.examples.example import Example
from mht.models.loading import load_causal_lm
from mht.models.value.critics import make_critic
from mht.rewards import Reward

KINDS = ["gpt2", "llama", "qwen2", "gemma2"]
PAD, EOS = 3, 2
TEXTS = [
    ("the film is", " a warm and funny story about an old man and his dog ."),
    ("a dull plot ,", " flat jokes and no end in sight"),
    ("an", " honest , moving and beautiful picture"),
    ("it is so slow that the audience falls asleep", " before the first scene ends ."),
    ("What is the capital of France?", " Paris"),
    ("a wonderful cast", " : the movie is bad ."),
]


def examples(tokenizer, n=6):
    """Prompts and targets of different lengths; targets end with EOS."""
    rows = (TEXTS * n)[:n]
    return [
        Example(
            f"{i:016x}",
            prompt,
            target,
            tokenizer(prompt)["input_ids"],
            [*tokenizer(target)["input_ids"], EOS],
            {"number": i},
        )
        for i, (prompt, target) in enumerate(rows)
    ]


def model_of(folder):
    """A model of its own for the test, in evaluation mode."""
    return load_causal_lm(folder)


def rollout_of(prompts, responses, *, left=0, right=0, pad=PAD):
    """Token lists as a rollout, with ``left`` and ``right`` more columns of padding."""
    width = left + max(map(len, prompts))
    longest = right + max(map(len, responses))
    prompt_ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    response_ids = torch.tensor([r + [pad] * (longest - len(r)) for r in responses])
    starts = torch.tensor([width - len(p) for p in prompts])
    lengths = torch.tensor([len(r) for r in responses])
    return Rollout(
        prompt_ids,
        torch.arange(width)[None] >= starts[:, None],
        response_ids,
        torch.arange(longest)[None] < lengths[:, None],
        torch.tensor([r[-1] == EOS for r in responses]),
    )


def responses_of(rollout):
    """The response tokens of each row as lists."""
    pairs = zip(rollout.response_ids, rollout.response_mask, strict=True)
    return [row[keep].tolist() for row, keep in pairs]


class TokenShare(Reward):
    """The share of a response's letters that are ``letter``: a toy that any model can learn."""

    type: str = "token_share"
    letter: str = "a"

    def score(self, samples):
        return [s.response.count(self.letter) / max(len(s.response), 1) for s in samples]


STATEFUL = {  # of a schedule: what has a state of its own is on
    "kl_control": {"type": "adaptive", "target": 0.1, "horizon": 20},
    "score_norm": True,
    "scheduler": {"type": "linear", "warmup_steps": 2},
    "cycles": 2,
    "sft_steps_per_cycle": 2,
    "ppo_steps_per_cycle": 2,
}


def critic(**options):
    """What makes a value head; a linear one without a type."""
    return make_critic(options)


def hybrid_config(**changes):
    """Small steps with a reward."""
    base = {
        "cycles": 1,
        "sft_steps_per_cycle": 1,
        "ppo_steps_per_cycle": 1,
        "reward": TokenShare(),
        "batch_size": 8,
        "minibatch_size": 4,
        "sft_batch_size": 4,
        "epochs": 2,
        "response_tokens": 6,
        "lr": 1e-3,
        "kl_control": {"type": "fixed"},
    }
    return HybridConfig(**base | changes)


EXAMPLES = object()


def trainer_of(model, tokenizer, data=EXAMPLES, **options):
    """A trainer on the CPU with small settings; ``options`` are `HybridTrainer`'s."""
    from mht.training.hybrid import HybridTrainer

    rows = examples(tokenizer) if data is EXAMPLES else data
    options = {"config": hybrid_config(), "device": "cpu"} | options
    return HybridTrainer(model, tokenizer, rows, **options)
