"""Tokenizers of every layout that the tests know, built here from a few sentences."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from tests.support.models import SENTENCES, SPECIAL

TEXTS = [*SENTENCES, "é ü 😀 die für 日本\n\tx = 1 | [INST] <im_start> 0123456789 QUAERST?!"]
SYSTEM_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_SYSTEM_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
TURNS = ["<|im_start|>", "<|im_end|>"]
LAYOUTS: dict[str, Callable[[], Any]] = {}
LOSSY = {"wordpiece", "wordlevel", "scratch"}  # these forget case, spaces or rare words


def layout(build: Callable[[], Any]) -> Callable[[], Any]:
    """Register a builder of a tokenizer by its name."""
    LAYOUTS[build.__name__] = cache(build)
    return LAYOUTS[build.__name__]


def fast(core: Any, **options: Any) -> Any:
    """A tokenizer of transformers around a backend."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=core, **{**SPECIAL, **options})


def byte_bpe(*, add_prefix_space: bool = False, more: tuple[str, ...] = ()) -> Any:
    """A byte-level BPE backend."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=450,
        special_tokens=[*SPECIAL.values(), *more],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(TEXTS * 4, trainer)
    return core


def piece_bpe(scheme: str | None) -> Any:
    """A BPE backend of "▁" pieces with byte fallback; None is Llama 2's normaliser."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme or "always")
    alike = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*SPECIAL.values(), *alike], show_progress=False
    )
    core.train_from_iterator(SENTENCES * 4, trainer)
    data = json.loads(core.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] not in alike]
    data["model"] |= {"byte_fallback": True, "fuse_unk": True}
    core = Tokenizer.from_str(json.dumps(data))
    ends = [decoders.ByteFallback(), decoders.Fuse()]
    if scheme is None:
        core.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        core.pre_tokenizer = None
    strip = [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), *ends, *strip])
    return core


def with_template(core: Any, single: str) -> Any:
    """The backend with a post-processor that places special tokens, "$A" being the text."""
    from tokenizers import processors

    placed = [word for word in single.split() if not word.startswith("$")]
    core.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(word, core.token_to_id(word)) for word in placed]
    )
    return core


@layout
def byte_level() -> Any:
    return fast(byte_bpe())


@layout
def byte_level_with_prefix_space() -> Any:
    return fast(byte_bpe(add_prefix_space=True))


@layout
def metaspace_always() -> Any:
    return fast(piece_bpe("always"))


@layout
def metaspace_first() -> Any:
    return fast(with_template(piece_bpe("first"), "<s> $A"))


@layout
def metaspace_never() -> Any:
    return fast(piece_bpe("never"))


@layout
def llama_2() -> Any:
    return fast(with_template(piece_bpe(None), "<s> $A"))


@layout
def eos_behind() -> Any:
    return fast(with_template(piece_bpe(None), "<s> $A </s>"))


@layout
def unigram() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=list(SPECIAL.values()),
        unk_token="<unk>",
        show_progress=False,
    )
    core.train_from_iterator(TEXTS * 20, trainer)
    data = json.loads(core.to_str())
    there = {piece for piece, _ in data["model"]["vocab"]}
    alike = [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
    data["model"]["vocab"] += [piece for piece in alike if piece[0] not in there]
    data["model"]["byte_fallback"] = True
    core = Tokenizer.from_str(json.dumps(data))
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return fast(core)


@layout
def wordpiece() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=list(names.values()), show_progress=False
    )
    core.train_from_iterator(TEXTS * 4, trainer)
    with_template(core, "[CLS] $A [SEP]")
    return fast(core, **names, bos_token="[CLS]", eos_token="[SEP]")


@layout
def wordlevel() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    core = Tokenizer(models.WordLevel(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=list(SPECIAL.values()), show_progress=False)
    core.train_from_iterator(TEXTS, trainer)
    return fast(core)


@layout
def scratch() -> Any:
    from mht.fresh.make import word_tokenizer

    return word_tokenizer([*TEXTS, "<s> </s> <pad>"])


def parts(core: Any) -> dict[str, Any]:
    """Vocabulary and merges of a BPE backend, as classes of transformers take them."""
    model = json.loads(core.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


@layout
def llama_by_name() -> Any:
    from transformers import LlamaTokenizerFast

    return LlamaTokenizerFast(**parts(piece_bpe(None)), pad_token="<pad>")


@layout
def gpt2_by_name() -> Any:
    from transformers import GPT2TokenizerFast

    return GPT2TokenizerFast(**parts(byte_bpe()), **SPECIAL)


@layout
def qwen2_by_name() -> Any:
    from transformers import Qwen2TokenizerFast

    core = byte_bpe(more=("<|endoftext|>", *TURNS))
    return Qwen2TokenizerFast(
        **parts(core), eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None
    )


@layout
def added_special_tokens() -> Any:
    tokenizer = fast(byte_bpe())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<answer>", "</answer>"]})
    return tokenizer


@layout
def chat_with_system() -> Any:
    return fast(byte_bpe(more=tuple(TURNS)), eos_token="<|im_end|>", chat_template=SYSTEM_TEMPLATE)


@layout
def chat_without_system() -> Any:
    return fast(with_template(piece_bpe(None), "<s> $A"), chat_template=NO_SYSTEM_TEMPLATE)


@layout
def written_in_python() -> Any:
    from transformers import ByT5Tokenizer

    return ByT5Tokenizer(extra_ids=4)


@layout
def no_pad() -> Any:
    tokenizer = fast(byte_bpe())
    tokenizer.pad_token = None
    return tokenizer


def tiny_llama(tokenizer: Any) -> Any:
    """A random Llama of that vocabulary with 64 positions."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()
