"""Model folders with any kind of damage: each loads and works, or is refused in a line."""

import json
import shutil
import time
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from mht.assets.encoders import fetch_encoder
from mht.assets.fetch import fetch_policy
from mht.assets.padding import set_pad
from mht.config import ModelConfig
from mht.core.errors import ModelError, UserError
from mht.generation.decoding import prompt_examples
from mht.generation.sampling.rollout import Responder
from mht.models.loading import load_causal_lm, load_tokenizer
from mht.models.value.files import VALUE_HEAD_FILE, load_value_head, save_value_head
from mht.models.value.heads import MLPHead
from mht.reward_models.classifier import load_tokenizer as encoder_tokenizer
from mht.rewards.models.sequence_classifier import classifier
from mht.rewards.models.shared import _load as loaded_once
from mht.training.hybrid import HybridTrainer
from tests.support.models import make_tiny_tokenizer
from tests.support.training import critic

SECONDS = 10
VALUES = (
    None, True, False, 0, 1, -1, 2, 3, 7, 10**12, -(10**12), 10**400, 0.5, 1e300, float("nan"),
    float("inf"), "", "64", "a", "\x00", "é" * 500, "../config.json", [], [1], ["a"], [[]],
    {}, {"a": 1}, {"type": "BPE"}, {"rope_type": "default"}, "BPE", "auto", "float16",
)  # fmt: skip
CONTENTS = (
    b"", b"[]", b"{", b"null", b"3", b'"a"', b"{}", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}",
    b"[" * 5000, b'{"a":' * 5000, b"\x00" * 64, b"9" * 5000, b"PK\x03\x04", b"\x80\x04K\x01.",
)  # fmt: skip


def places(value, path=()):
    """The paths of all values inside a JSON value."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield (*path, key)
            yield from places(inner, (*path, key))


def change_json(file, random):
    """Another value, or none, somewhere; most often near the top."""
    content = json.loads(file.read_text(encoding="utf-8"))
    found = list(places(content))
    top = [path for path in found if len(path) <= 2]
    if not found:
        return file.write_bytes(random.choice(CONTENTS))
    *way, last = random.choice(top if random.random() < 0.8 else found)
    inside = content
    for key in way:
        inside = inside[key]
    if random.random() < 0.25:
        del inside[last]
    else:
        inside[last] = random.choice(VALUES)
    return file.write_text(json.dumps(content), encoding="utf-8")


def flip(file, random):
    data = bytearray(file.read_bytes())
    early = random.random() < 0.5  # in the header of a weight file
    place = random.randrange(min(len(data), 300) if early else len(data))
    data[place] ^= 1 << random.randrange(8)
    file.write_bytes(data)


def cut(file, random):
    data = file.read_bytes()
    file.write_bytes(data[: random.randrange(len(data))])


def replace(file, random):
    file.write_bytes(random.choice(CONTENTS))


def remove(file, random):
    file.unlink()


def make_folder(file, random):
    file.unlink()
    file.mkdir()


def poison(file, random):
    """Weights of another value, shape or dtype, or one fewer."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    name = random.choice(sorted(tensors))
    value = random.choice([float("nan"), float("inf"), float("-inf"), 1e38, 0.0])
    tensor = tensors[name].clone()
    tensor.view(-1)[random.randrange(tensor.numel())] = value
    cut = [tensor[:0].clone(), tensor[:1].clone(), None]
    changed = [tensor, *cut, *(tensor.to(d) for d in (torch.int64, torch.half, torch.bool))]
    tensors[name] = random.choice(changed[:1] if random.random() < 0.5 else changed)
    tensors = {key: tensor for key, tensor in tensors.items() if tensor is not None}
    save_file(tensors, file, metadata={"format": "pt"})


DAMAGES = (flip, cut, replace, remove, make_folder)


def damage(folder, random):
    """Break a copy of a model folder in one place, sometimes two."""
    for _ in range(random.choice((1, 1, 1, 2))):
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "README.md")
        if not files:
            return
        file = random.choice(files)
        more = [change_json] * 8 if file.suffix == ".json" else [poison] * 2
        try:
            random.choice([*DAMAGES, *more])(file, random)
        except (ValueError, SafetensorError):
            continue  # the first damage left nothing that the second could read


def broken_copy(folder, target, random):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    damage(target, random)
    return target


def works(model, tokenizer):
    """A model that reads and writes, with finite weights."""
    assert all(torch.isfinite(p).all() for p in model.parameters())
    set_pad(model, tokenizer)
    responder = Responder(model, tokenizer, {"response_tokens": 2, "temperature": 1.0})
    examples = prompt_examples(tokenizer, ["the film"])
    drawn = responder.respond(examples, torch.Generator())
    assert isinstance(responder.samples(drawn, examples)[0].response, str)
    ids = tokenizer("the film is warm")["input_ids"]
    logits = model(input_ids=torch.tensor([ids])).logits
    huge = any(p.abs().max() > 1e15 for p in model.parameters())  # sums of these overflow
    assert huge or not torch.isnan(logits).any()
    assert isinstance(tokenizer.decode(ids), str)


def outcome(load, *arguments):
    """What a loader gives, None where it refuses; nothing else may happen, and soon."""
    start = time.monotonic()
    try:
        return load(*arguments)
    except UserError as error:
        assert len(str(error).splitlines()) <= 3 and len(str(error)) < 1000, error
        return None
    finally:
        assert time.monotonic() - start < SECONDS


# -- the ways in --------------------------------------------------------------------------------


def both(folder):
    return load_causal_lm(folder), load_tokenizer(folder)


def check_policy(folder, work, random):
    source = broken_copy(folder, work / "broken", random)
    if outcome(fetch_policy, ModelConfig(name=str(source)), work / "out"):
        written = outcome(both, work / "out")
        if written:
            works(*written)


def check_loading(folder, work, random):
    found = outcome(both, broken_copy(folder, work / "broken", random))
    if found:
        works(*found)


def check_classifier(folder, work, random):
    source = broken_copy(folder, work / "broken", random)
    loaded_once.cache_clear()
    model = outcome(classifier, str(source), "cpu")
    if model:
        assert outcome(model.logits, ["a warm film", ""], 2) is not None


def check_encoder(folder, work, random):
    source = broken_copy(folder, work / "broken", random)
    outcome(fetch_encoder, str(source), work / "out")


CHECKS = (check_policy, check_loading, check_classifier, check_encoder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_model_dir):
    """A sound folder for each of the ways in."""
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    policy, work = tiny_model_dir("llama", chat=True), tmp_path_factory.mktemp("sound")
    tokenizer = make_tiny_tokenizer()
    shape = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    for kind in (BertForSequenceClassification, BertModel):
        kind(shape).save_pretrained(work / kind.__name__)
        tokenizer.save_pretrained(work / kind.__name__)
    encoder = SentenceTransformer(str(work / "BertModel"), device="cpu")
    encoder.save_pretrained(str(work / "encoder"), create_model_card=False)
    return policy, policy, work / "BertForSequenceClassification", work / "encoder"


def test_sound_folders_load(folders, tmp_path):
    fetch_policy(ModelConfig(name=str(folders[0])), tmp_path / "policy")
    works(*both(tmp_path / "policy"))
    works(*both(folders[1]))
    assert classifier(str(folders[2]), "cpu").logits(["a warm film"], 1).shape == (1, 2)
    fetch_encoder(str(folders[3]), tmp_path / "encoder")


CASES = {"way": st.sampled_from(range(len(CHECKS))), "random": st.randoms()}


@settings(derandomize=True, database=None, deadline=None, max_examples=100)
@given(**CASES)
def test_a_broken_folder_works_or_is_refused(folders, tmp_path_factory, way, random):
    CHECKS[way](folders[way], tmp_path_factory.getbasetemp(), random)


@pytest.mark.slow
@settings(derandomize=True, database=None, deadline=None, max_examples=10_000)
@given(**CASES)
def test_any_broken_folder_works_or_is_refused(folders, tmp_path_factory, way, random):
    CHECKS[way](folders[way], tmp_path_factory.getbasetemp(), random)


# -- each kind of fault by name ------------------------------------------------------------------


def settings_of(**changes):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def weights_of(change):
    def changed(folder):
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return changed


def pickled(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"a": Random(0)}, folder / "pytorch_model.bin")


def written(name, text):
    return lambda folder: (folder / name).write_text(text)


def nan_in(name):
    return weights_of(lambda tensors: tensors[name].view(-1)[3:4].fill_(float("nan")))


UP = "model.layers.1.mlp.up_proj.weight"
NO_ROPE = {"rope_theta": 0, "rope_type": "default"}
OUTSIDE = '{"weight_map": {"a": "../model.safetensors"}}'
FAULTS = {
    "list": (written("config.json", "[]"), "config.json holds|no config"),
    "text for a size": (settings_of(hidden_size="64"), "hidden_size"),
    "negative size": (settings_of(hidden_size=-1), "-1"),
    "huge size": (settings_of(hidden_size=10**12), "other shapes"),
    "no vocabulary": (settings_of(vocab_size=0), "Padding_idx|other shapes"),
    "too many layers": (settings_of(num_hidden_layers=10**12), "1e[+]12 layers, and there are 21"),
    "too few layers": (settings_of(num_hidden_layers=1), "more layers than its config says"),
    "unknown type": (settings_of(model_type="nope"), "nope"),
    "no theta": (settings_of(rope_parameters=NO_ROPE), "inv_freq"),
    "pickle": (pickled, "pickled weights are damaged or hold more than tensors"),
    "index": (written("model.safetensors.index.json", OUTSIDE), "no file of the folder"),
    "nan": (nan_in(UP), f"its weight {UP} has values that are nan or infinite"),
    "whole numbers": (weights_of(lambda t: t.update({UP: t[UP].int()})), f"{UP} is stored as I32"),
    "generation": (written("generation_config.json", "[1]"), "generation_config.json holds"),
}  # fmt: skip
OF_TOKENIZERS = {
    "cut": (written("tokenizer.json", '{"version": "1.0", "model": {'), "double quotes"),
    "version": (written("tokenizer.json", '{"version": "9"}'), "added_tokens"),
    "template": (written("chat_template.jinja", "{% for m in %}"), "no Jinja template, line 1"),
    "settings": (written("tokenizer_config.json", '["a"]'), "tokenizer_config.json holds"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_model_is_refused_with_the_reason(folders, tmp_path, fault):
    change, reason = FAULTS[fault]
    source = shutil.copytree(folders[0], tmp_path / "model")
    change(source)
    for load in (
        load_causal_lm,
        lambda name: fetch_policy(ModelConfig(name=str(name)), tmp_path / "out"),
        lambda name: HybridTrainer(str(name), device="cpu"),
    ):
        with pytest.raises(ModelError, match=reason) as caught:
            load(source)
        assert str(source) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", OF_TOKENIZERS)
def test_a_faulty_tokenizer_is_refused_with_the_reason(folders, tmp_path, fault):
    change, reason = OF_TOKENIZERS[fault]
    source = shutil.copytree(folders[0], tmp_path / "model")
    change(source)
    for load in (load_tokenizer, encoder_tokenizer):
        with pytest.raises(ModelError, match=reason) as caught:
            load(str(source))
        assert str(source) in str(caught.value) and "\n" not in str(caught.value)


def test_a_loaded_model_with_nan_is_refused(folders):
    model, tokenizer = both(folders[0])
    model.get_parameter(UP).data[0, 0] = float("inf")
    with pytest.raises(ModelError, match=f"its weight {UP} has values that are nan or infinite"):
        HybridTrainer(model, tokenizer, device="cpu")


def test_a_link_to_nothing_is_no_matter(folders, tmp_path):
    source = shutil.copytree(folders[2], tmp_path / "model")
    (source / "link").symlink_to("nowhere")
    assert classifier(str(source), "cpu").labels


@settings(derandomize=True, database=None, deadline=None, max_examples=50)
@given(position=st.integers(0, 2**40), bit=st.integers(0, 7), keep=st.floats(0, 1))
def test_a_damaged_value_head_is_one_line(folders, tmp_path_factory, position, bit, keep):
    folder = tmp_path_factory.getbasetemp()
    settings, head = critic(type="mlp"), MLPHead(8, 16)
    save_value_head(head.state_dict(), settings, folder)
    data = bytearray((folder / VALUE_HEAD_FILE).read_bytes())
    data[position % 400 if keep > 0.5 else position % len(data)] ^= 1 << bit
    (folder / VALUE_HEAD_FILE).write_bytes(data[: int(2 * keep * len(data))])
    outcome(load_value_head, head, settings, folder)
    assert all(torch.isfinite(value).all() for value in head.state_dict().values())
