"""Sampling by `transformers.generate` on the same weights."""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def prepare(s):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(s["model"])
    model = AutoModelForCausalLM.from_pretrained(s["model"], dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)

    top = model.config.vocab_size

    def once():
        prompts = torch.randint(100, top, (s["batch"], s["prompt"]), generator=generator)
        with torch.no_grad():
            full = model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=s["response"],
                min_new_tokens=s["response"],
                do_sample=True,
                top_k=0,
                top_p=1.0,
                pad_token_id=tokenizer.pad_token_id,
            )
        return {"tokens": full.shape[0] * (full.shape[1] - s["prompt"])}

    once()
    return once
