"""A PPO iteration of TRL 0.11.4: generate, then PPOTrainer.step."""

import json
import warnings
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer, create_reference_model

warnings.simplefilter("ignore")


def make_trainer(folder, unfrozen, **settings):
    """TRL's trainer of a folder's model; lower layers shared with the reference TRL's own way."""
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
    reference = create_reference_model(model, num_shared_layers=shared)
    config = PPOConfig(gradient_accumulation_steps=1, log_with=None, **settings)
    return PPOTrainer(config, model, reference, tokenizer)


def respond(trainer, prompts, batch_size, response_tokens, **options):
    """A response to each prompt, drawn from the whole distribution."""
    return trainer.generate(
        prompts,
        batch_size=batch_size,
        return_prompt=False,
        max_new_tokens=response_tokens,
        do_sample=True,
        top_k=0,
        top_p=1.0,
        pad_token_id=trainer.tokenizer.pad_token_id,
        **options,
    )


def prepare(s):
    torch.manual_seed(0)
    trainer = make_trainer(
        s["model"],
        s["unfrozen"],
        batch_size=s["batch"],
        mini_batch_size=s["minibatch"],
        ppo_epochs=s["epochs"],
        learning_rate=1e-6,
    )
    generator = torch.Generator().manual_seed(0)
    top = trainer.model.pretrained_model.config.vocab_size

    def once():
        prompts = torch.randint(100, top, (s["batch"], s["prompt"]), generator=generator)
        length = s["response"]
        responses = respond(trainer, list(prompts), s["batch"], length, min_new_tokens=length)
        scores = list(torch.rand(s["batch"], generator=generator))
        trainer.step(list(prompts), responses, scores)
        updates = s["epochs"] * s["batch"] // s["minibatch"]
        return {"tokens": sum(len(r) for r in responses), "updates": updates}

    once()
    return once
