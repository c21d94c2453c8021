"""Fresh models: a tokenizer of whole words, weights that follow from the seed, refusals."""

import json

import pytest

from mht.assets.fetch import fetch_policy
from mht.checks.preflight import Shape, shape_of
from mht.config import Config, ModelConfig, read_yaml
from mht.core.component import build
from mht.core.errors import ConfigError, ModelError
from mht.data.sources.fetch import fetch_rows, fetched_texts
from mht.fresh.make import make_fresh, word_tokenizer
from mht.fresh.scratch import Scratch
from mht.models.loading import load_causal_lm, load_tokenizer

TEXTS = ["5 12 7 0", "12  5\n0", "20 0"]


def shape(**changes):
    sizes = {"layers": 1, "width": 16, "heads": 2, "context": 16}
    return Scratch(type="scratch", **sizes | changes)


def test_one_token_for_each_word_and_nothing_else():
    tokenizer = word_tokenizer(TEXTS)
    words = ["0", "5", "7", "12", "20"]
    assert tokenizer.convert_ids_to_tokens(range(7)) == ["<pad>", "</s>", *(f" {w}" for w in words)]
    assert len(tokenizer) == 7
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert tokenizer("5")["input_ids"] == tokenizer(" 5\n")["input_ids"] == [3]
    assert tokenizer("5 12 7 0")["input_ids"] == [3, 5, 4, 2]
    assert tokenizer("")["input_ids"] == []


def test_a_continuation_decodes_with_its_space():
    tokenizer = word_tokenizer(TEXTS)
    ids = tokenizer(" 12 7 0")["input_ids"]
    assert tokenizer.decode([*ids, 1, 0], skip_special_tokens=True) == " 12 7 0"


def test_the_order_of_texts_does_not_matter():
    assert word_tokenizer(TEXTS).get_vocab() == word_tokenizer(TEXTS[::-1]).get_vocab()


def test_an_unknown_word_is_not_passed_over():
    with pytest.raises(Exception, match="UNK"):
        word_tokenizer(TEXTS)("5 nowhere 0")


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_weights_follow_from_the_seed_alone(architecture):
    import torch

    torch.manual_seed(7)
    state = torch.get_rng_state()
    models = [make_fresh(shape(architecture=architecture, seed=s), TEXTS)[0] for s in (3, 3, 4)]
    assert torch.equal(torch.get_rng_state(), state), "the process's own stream is left alone"
    first, again, other = (dict(model.named_parameters()) for model in models)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    config = models[0].config
    assert config.vocab_size == 7 and config.num_hidden_layers == 1 and config.hidden_size == 16
    assert models[0](torch.tensor([[3, 5]])).logits.shape == (1, 2, 7)


def test_fetched_like_any_other_model(tmp_path):
    config = ModelConfig(name=shape(seed=5))
    asset = fetch_policy(config, tmp_path / "one", TEXTS)
    fetch_policy(config, tmp_path / "two", TEXTS)
    contents = [{p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("one", "two")]
    assert contents[0] == contents[1]
    assert asset["name"] == "a fresh llama of 1 layers, 16 wide" and asset["version"] == "seed 5"
    model, tokenizer = load_causal_lm(tmp_path / "one"), load_tokenizer(tmp_path / "one")
    assert model.config.pad_token_id == tokenizer.pad_token_id == 0
    assert model.config.eos_token_id == tokenizer.eos_token_id == 1
    assert tokenizer.decode(tokenizer("5 20")["input_ids"]) == " 5 20"


def test_its_words_are_those_of_the_cleaned_data(tmp_path):
    rows = [
        {"text": "a&amp;b \u200bc", "item": {}},
        {"prompt": "d", "target": "e", "item": {"turns": [{"role": "user", "content": "f"}]}},
    ]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    words = {word for text in fetched_texts(tmp_path) for word in text.split()}
    assert words == {"a&b", "c", "d", "e", "f"}


def test_a_fresh_model_needs_words():
    with pytest.raises(ModelError, match=r"model.name: a fresh model needs data with words"):
        make_fresh(shape(), ["", " "])


def settings(name):
    data = read_yaml("params.yaml")
    data["model"] |= {"name": name, "num_layers_unfrozen": "all"}
    return data


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ({"type": "scratch", "layrs": 2}, r"model\.name\.layrs: no such option .*'layers'"),
        ({"type": "scratch", "layers": 0}, r"model\.name\.layers: .*greater than 0, got 0"),
        ({"type": "fresh"}, r"model\.name\.type: unknown model 'fresh'.*scratch"),
        ({"type": "scratch", "width": 10}, r"model\.name\.heads: 4 heads .* width of 10"),
        (5, r"model\.name: should be a name, a folder or the shape of a fresh model, got 5"),
    ],
)
def test_mistakes_have_their_path(name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build(Config, settings(name))
    assert len(caught.value.problems) == 1


def test_settings_survive_a_round_trip():
    config = build(Config, settings({"type": "scratch", "layers": 3}))
    assert config.model.name == Scratch(type="scratch", layers=3)
    assert build(Config, config.model_dump(mode="json")).model == config.model
    assert shape_of(config.model.name) == Shape(3, 64)


def test_the_source_and_a_fresh_model_fit(tmp_path):
    data = settings({"type": "scratch"})
    data["data"] |= {"source": {"type": "randomwalks", "walks": 200}, "labels": None}
    config = build(Config, data)
    fetch_rows(config.data, tmp_path)
    _, tokenizer = make_fresh(config.model.name, fetched_texts(tmp_path))
    assert set(tokenizer.get_vocab()) == {"<pad>", "</s>", *(f" {node}" for node in range(21))}
