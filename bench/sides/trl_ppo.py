"""A PPO iteration of TRL 0.11.4: generate, then PPOTrainer.step."""

import warnings

import torch
from transformers import AutoTokenizer
from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer, create_reference_model

warnings.simplefilter("ignore")


def prepare(s):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(s["model"])
    model = AutoModelForCausalLMWithValueHead.from_pretrained(s["model"])
    shared = None
    if s["unfrozen"] != "all":  # TRL's own way to share and freeze the lower layers
        shared = model.pretrained_model.config.num_hidden_layers - s["unfrozen"]
    reference = create_reference_model(model, num_shared_layers=shared)
    config = PPOConfig(
        batch_size=s["batch"],
        mini_batch_size=s["minibatch"],
        gradient_accumulation_steps=1,
        ppo_epochs=s["epochs"],
        learning_rate=1e-6,
        log_with=None,
    )
    trainer = PPOTrainer(config, model, reference, tokenizer)
    generator = torch.Generator().manual_seed(0)
    options = {
        "max_new_tokens": s["response"],
        "min_new_tokens": s["response"],
        "do_sample": True,
        "top_k": 0,
        "top_p": 1.0,
        "pad_token_id": tokenizer.pad_token_id,
    }

    def once():
        prompts = torch.randint(100, 40000, (s["batch"], s["prompt"]), generator=generator)
        responses = trainer.generate(
            list(prompts), batch_size=s["batch"], return_prompt=False, **options
        )
        scores = list(torch.rand(s["batch"], generator=generator))
        trainer.step(list(prompts), responses, scores)
        updates = s["epochs"] * s["batch"] // s["minibatch"]
        return {"tokens": sum(len(r) for r in responses), "updates": updates}

    once()
    return once
