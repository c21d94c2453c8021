"""A PPO iteration of TRL 0.11.4: generate, then PPOTrainer.step."""

import json
import warnings
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer, create_reference_model

warnings.simplefilter("ignore")


def load(folder, unfrozen):
    """Tokenizer, policy with value head, and reference; lower layers shared TRL's own way."""
    folder = Path(folder)
    special = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        eos_token=special["eos_token"],
        pad_token=special["pad_token"],
    )
    config = AutoConfig.from_pretrained(folder)
    rope = json.loads((folder / "config.json").read_text()).get("rope_parameters", {})
    config.rope_theta = rope.get("rope_theta", config.rope_theta)  # where this version looks for it
    base = AutoModelForCausalLM.from_pretrained(folder, config=config, torch_dtype=torch.float32)
    model = AutoModelForCausalLMWithValueHead.from_pretrained(base)
    layers = model.pretrained_model.config.num_hidden_layers
    shared = None if unfrozen == "all" else layers - unfrozen
    return tokenizer, model, create_reference_model(model, num_shared_layers=shared)


def prepare(s):
    torch.manual_seed(0)
    tokenizer, model, reference = load(s["model"], s["unfrozen"])
    settings = PPOConfig(
        batch_size=s["batch"],
        mini_batch_size=s["minibatch"],
        gradient_accumulation_steps=1,
        ppo_epochs=s["epochs"],
        learning_rate=1e-6,
        log_with=None,
    )
    trainer = PPOTrainer(settings, model, reference, tokenizer)
    generator = torch.Generator().manual_seed(0)
    options = {
        "max_new_tokens": s["response"],
        "min_new_tokens": s["response"],
        "do_sample": True,
        "top_k": 0,
        "top_p": 1.0,
        "pad_token_id": tokenizer.pad_token_id,
    }

    top = model.pretrained_model.config.vocab_size

    def once():
        prompts = torch.randint(100, top, (s["batch"], s["prompt"]), generator=generator)
        responses = trainer.generate(
            list(prompts), batch_size=s["batch"], return_prompt=False, **options
        )
        scores = list(torch.rand(s["batch"], generator=generator))
        trainer.step(list(prompts), responses, scores)
        updates = s["epochs"] * s["batch"] // s["minibatch"]
        return {"tokens": sum(len(r) for r in responses), "updates": updates}

    once()
    return once
