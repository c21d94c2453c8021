"""Sampling by MHT."""

import torch

import stages  # noqa: F401
from mht.generation.sampling.rollout import Responder
from mht.models.loading import load_causal_lm, load_tokenizer


def prepare(s):
    model = load_causal_lm(s["model"]).requires_grad_(False)
    decoding = {"response_tokens": s["response"], "temperature": 1.0}
    responder = Responder(model, load_tokenizer(s["model"]), decoding)
    responder.eos_ids = set()
    generator = torch.Generator().manual_seed(0)

    top = model.config.vocab_size

    def once():
        prompts = torch.randint(100, top, (s["batch"], s["prompt"]), generator=generator)
        mask = torch.ones_like(prompts, dtype=torch.bool)
        rollout = responder.draw(prompts, mask, generator)
        return {"tokens": int(rollout.lengths.sum())}

    once()
    return once
