"""A tiny tokenizer and tiny random models of real architectures."""

from __future__ import annotations

import dvc  # noqa: F401 (its log keeps the stdout of its import: not that of one test)

SENTENCES = [
    "the film is a warm and funny story about an old man and his dog .",
    "a dull plot , flat jokes and no end in sight : the movie is bad .",
    "an honest , moving and beautiful picture with a wonderful cast .",
    "it is so slow that the audience falls asleep before the first scene ends .",
    "What is the capital of France? Paris is the capital of France.",
]
SPECIAL = {
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
}
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<s>' + m['role'] + '\n' + m['content'] + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
MODEL_SIZES = {
    "gpt2": {"n_embd": 32, "n_head": 4, "n_positions": 256},
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 16},
    "gemma3_text": {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 16,
        "final_logit_softcapping": 20.0,
    },
}
PATTERNS = {"gemma3_text": ["sliding_attention", "full_attention"]}  # as Gemma 3 has, in turn


def make_tiny_tokenizer(*, chat: bool = False):
    """A byte-level BPE tokenizer of 400 tokens, unk 0, bos 1, eos 2, pad 3, any text round-trips.

    It adds no special tokens by itself. With ``chat`` it has a chat template.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **SPECIAL,
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def save_tiny_model(folder, kind, layers, seed, tokenizer):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    common = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.2,  # far from uniform, so that mistakes show in the numbers
    }
    if kind == "gpt2":
        shape = {"n_layer": layers, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    else:
        shape = {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
        }
    if kind in PATTERNS:
        shape["layer_types"] = (PATTERNS[kind] * layers)[:layers]
    config = AutoConfig.for_model(kind, **common, **shape, **MODEL_SIZES[kind])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
