"""Fresh models: a small language model with random weights, and a tokenizer of whole words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from mht.config.policy import ScratchConfig
from mht.core.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

PAD, EOS = "<pad>", "</s>"


def make_scratch(
    config: ScratchConfig, texts: Iterable[str]
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A model of that shape in float32, and its tokenizer; both follow from their arguments.

    Args:
        config: its shape and the seed of its weights.
        texts: their words are the vocabulary.

    Raises:
        ModelError: the texts have no words.
    """
    from transformers import AutoModelForCausalLM

    tokenizer = word_tokenizer(texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = AutoModelForCausalLM.from_config(_shape(config, tokenizer), dtype=torch.float32)
    return model.eval(), tokenizer


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token for each word of the texts, PAD 0 and EOS 1 before them, and no other.

    Words stand between spaces, of which a token has the one before it: what continues a prompt
    decodes with its leading space. A word that was in no text can't be encoded, and says so.

    Args:
        texts: in any order.

    Raises:
        ModelError: there is no word in them.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text in texts for word in text.split()}, key=lambda w: (len(w), w))
    if not words:
        raise ModelError("model.name: a fresh model needs data with words in them")
    vocabulary = [PAD, EOS, *(f" {word}" for word in words)]
    core = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}))
    core.normalizer = normalizers.Sequence(
        [
            normalizers.Strip(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Prepend(" "),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _shape(config: ScratchConfig, tokenizer: PreTrainedTokenizerFast) -> PretrainedConfig:
    """The family's own configuration; no dropout, which PPO could not train with."""
    from transformers import AutoConfig

    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    sizes: dict[str, dict[str, Any]] = {
        "llama": {
            "hidden_size": config.width,
            "intermediate_size": 4 * config.width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.heads,
            "max_position_embeddings": config.context,
        },
        "gpt2": {
            "n_embd": config.width,
            "n_layer": config.layers,
            "n_head": config.heads,
            "n_positions": config.context,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        },
    }
    return AutoConfig.for_model(config.architecture, **common, **sizes[config.architecture])
