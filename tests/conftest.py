"""What many tests share: no network, one thread, a tiny tokenizer and tiny random models.

MHT_TEST_THREADS=2 gives them two threads: `make processors` holds that they pass so too.

``tiny_tokenizer`` is built in this process from a few sentences. ``tiny_model_dir(kind)`` writes a
random model of a real architecture with that tokenizer as a Hugging Face folder and returns its
path; the same arguments give the same folder for the whole session.
"""

from __future__ import annotations

import os
import signal
import socket

# in the background of a shell ctrl-C is ignored, and so it would be in stages that tests start
signal.signal(signal.SIGINT, signal.default_int_handler)
# before anything imports torch or a Hugging Face library; stages that tests start inherit it
os.environ["OMP_NUM_THREADS"] = os.environ.get("MHT_TEST_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "DVC_STAGE", "DVC_ROOT", "DVC_EXP_NAME"):
    os.environ.pop(name, None)  # a developer's own runs stay out of it

import dvc  # noqa: E402, F401 (its log keeps the stdout of its import: not that of one test)
import pytest  # noqa: E402

pytest.register_assert_rewrite("tests.support.pipeline")

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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """The tests of the finished pipeline come first, so that nobody waits for it.

    xdist gives every process one stretch of the list: the first process makes the pipeline while
    the others are at work on theirs.
    """
    items.sort(key=lambda item: "finished" not in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Connections leave this process only for this machine."""
    connect = socket.socket.connect

    def guarded(self, address):
        local = self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost")
        if not local:
            raise RuntimeError(f"tests have no network, but something connects to {address}")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


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


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """The tokenizer of `make_tiny_tokenizer`, without a chat template."""
    return make_tiny_tokenizer()


@pytest.fixture(scope="session")
def tiny_chat_tokenizer():
    """The same with a chat template."""
    return make_tiny_tokenizer(chat=True)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory):
    """``tiny_model_dir(kind="llama", layers=2, seed=0, chat=False) -> Path`` of a model folder.

    Kinds: those of MODEL_SIZES; hidden size 32, 4 heads, 256 positions, dropout 0.
    """
    made = {}

    def make(kind: str = "llama", *, layers: int = 2, seed: int = 0, chat: bool = False):
        key = (kind, layers, seed, chat)
        if key not in made:
            made[key] = tmp_path_factory.mktemp(f"{kind}-{layers}")
            _save_tiny_model(made[key], kind, layers, seed, make_tiny_tokenizer(chat=chat))
        return made[key]

    return make


def _save_tiny_model(folder, kind, layers, seed, tokenizer):
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
