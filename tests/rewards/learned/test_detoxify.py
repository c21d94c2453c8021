"""Detoxify's checkpoints through its package: present, absent, and not what they should be."""

import os
import shutil

import pytest
import torch

from mht.rewards import make_reward
from mht.rewards.models.detoxify_model import cached_file
from tests.support.classifiers import ORIGINAL, SENTENCE, TEXTS, WORDS, error_of, save

ARCHITECTURE = {
    "num_classes": len(ORIGINAL),
    "model_type": "bert-base-uncased",
    "model_name": "BertForSequenceClassification",
    "tokenizer_name": "BertTokenizer",
}


def content(model, **changes):
    """What Detoxify writes."""
    return {
        "config": {
            "arch": {"args": {**ARCHITECTURE, **changes}},
            "dataset": {"args": {"classes": ORIGINAL}},
        },
        "state_dict": model.state_dict(),
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A tiny random BERT of Detoxify's six classes."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5 + len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40, initializer_range=0.5,
        num_labels=len(ORIGINAL),
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


@pytest.fixture
def folder(small, tmp_path):
    """A folder with config and tokenizer of the encoder, and the checkpoint."""
    from transformers import BertTokenizerFast

    place = tmp_path / "detoxify"
    place.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *SENTENCE.split()]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt")).save_pretrained(place)
    small.config.save_pretrained(place)
    torch.save(content(small), place / "toxic.ckpt")
    return place


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Empty caches, and nothing that downloads."""

    def download(*_, **__):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "torch"))


def theirs(folder, small, name):
    """The package's own scores of a checkpoint, which it loads in its own way."""
    from detoxify import Detoxify

    file = folder.parent / "theirs.ckpt"
    torch.save(content(small, model_type=str(folder)), file)
    detoxify = Detoxify(checkpoint=str(file), huggingface_config_path=str(folder))
    return [detoxify.predict(text)[name] for text in TEXTS]


def test_it_scores_as_the_package_does(folder, small):
    expected = theirs(folder, small, "severe_toxicity")
    assert len(set(expected)) > 2
    for model in (folder, folder / "toxic.ckpt"):
        spec = {"type": "toxicity", "model": str(model), "target": "severe_toxicity"}
        assert make_reward(spec)(TEXTS) == pytest.approx(expected, abs=1e-6)
    low = make_reward({**spec, "type": "detoxify", "invert": True, "batch_size": 2})(TEXTS)
    assert low == pytest.approx([1 - p for p in expected], abs=1e-6)
    several = make_reward({**spec, "target": ["toxic", "identity_attack"]})("a good film")
    logits = make_reward(spec).classifier().logits(["a good film"], 1)[0].sigmoid()
    assert several == pytest.approx(max(logits[0].item(), logits[5].item()), abs=1e-6)


@pytest.mark.parametrize("beside", ["checkpoint", "encoder in the hub's cache"])
def test_a_short_name_takes_what_is_in_torch_hubs_cache(folder, small, beside, tmp_path):
    file = cached_file("original")
    assert file.name == "toxic_original-c1212f89.ckpt"
    file.parent.mkdir(parents=True)
    shutil.copy(folder / "toxic.ckpt", file)
    said = error_of({"type": "toxicity"})
    assert f"{file} needs the config and tokenizer of bert-base-uncased: put config.json" in said
    place = file.parent
    if beside != "checkpoint":
        hub = tmp_path / "hub" / "models--google-bert--bert-base-uncased"
        place = hub / "snapshots" / "0a1b"
        (hub / "refs").mkdir(parents=True)
        (hub / "refs" / "main").write_text("0a1b")
    shutil.copytree(folder, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.ckpt"))
    expected = theirs(folder, small, "toxicity")
    assert make_reward({"type": "toxicity"})(TEXTS) == pytest.approx(expected, abs=1e-6)


def test_without_a_checkpoint_transformers_loads_it(tmp_path):
    model = save(tmp_path / "safe", "Bert", ORIGINAL, problem_type="multi_label_classification")
    reward = make_reward({"type": "toxicity", "model": model})
    assert reward.models() == (model,) and 0 < reward("a good film") < 1
    said = error_of({"type": "toxicity", "model": "multilingual"})
    assert "no folder 'unitary/multilingual-toxic-xlm-roberta@refs/pr/1' here" in said
    assert said.endswith(f"; or put Detoxify's checkpoint at {cached_file('multilingual')}")


class Harm:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (self.file,)


def test_no_code_of_a_checkpoint_runs(folder, small, tmp_path):
    harmed = tmp_path / "harmed"
    torch.save({**content(small), "extra": Harm(str(harmed))}, folder / "toxic.ckpt")
    said = error_of({"type": "toxicity", "model": str(folder)})
    assert "is no checkpoint of Detoxify (it holds more than tensors and plain values" in said
    assert not harmed.exists()


def without(values, name):
    return {key: value for key, value in values.items() if key != name}


WRONG = {
    "no file": (None, "no such file"),
    "no config": (lambda c: without(c, "config"), "is no checkpoint of Detoxify (KeyError: 'con"),
    "a list": (lambda c: [1], "is no checkpoint of Detoxify (TypeError"),
    "something else of transformers": (
        lambda c: c["config"]["arch"]["args"].update(model_name="pipeline") or c,
        "its model_name is 'pipeline'",
    ),
    "a path": (
        lambda c: c["config"]["arch"]["args"].update(model_type="../../etc/passwd") or c,
        "its model_type is '../../etc/passwd'",
    ),
    "other classes": (
        lambda c: c["config"]["dataset"]["args"].update(classes=["toxic"]) or c,
        "it has 1 classes, and num_classes 6",
    ),
    "missing weights": (
        lambda c: {**c, "state_dict": without(c["state_dict"], "classifier.weight")},
        "classifier.weight",
    ),
    "not finite": (
        lambda c: {
            **c,
            "state_dict": c["state_dict"] | {"classifier.bias": torch.full((6,), torch.nan)},
        },
        "classifier.bias",
    ),
    "other sizes": (
        lambda c: {**c, "state_dict": c["state_dict"] | {"classifier.bias": torch.zeros(9)}},
        "does not load as a Detoxify model",
    ),
    "no checkpoint": (lambda c: b"text", "is no checkpoint of Detoxify"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_checkpoint_is_one_line(folder, small, case):
    change, what = WRONG[case]
    file = folder / "toxic.ckpt"
    if change is None:
        file.unlink()
    elif isinstance(found := change(content(small)), bytes):
        file.write_bytes(found)
    else:
        torch.save(found, file)
    said = error_of({"type": "toxicity", "model": str(file)})
    assert what in said and "\n" not in said


def test_several_checkpoints_want_a_name(folder):
    shutil.copy(folder / "toxic.ckpt", folder / "other.ckpt")
    said = error_of({"type": "toxicity", "model": str(folder)})
    assert "has several checkpoints (other.ckpt, toxic.ckpt): name one" in said
