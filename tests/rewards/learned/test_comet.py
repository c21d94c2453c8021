"""comet, on tiny random checkpoints in the official layout, against the arithmetic spelt out."""

import pytest
import torch
from safetensors.torch import save_file

from mht.core.errors import ConfigError, ModelError
from mht.rewards import make_reward
from mht.rewards.models.comet_model import sparsemax
from tests.support.classifiers import WORDS, word_tokenizer

HPARAMS = """
activations: Tanh
class_identifier: regression_metric
dropout: 0.1
encoder_model: XLM-RoBERTa
final_activation: null
hidden_sizes:
- 24
- 12
layer: mix
pool: avg
pretrained_model: xlm-roberta-large
train_data:
- data/1720-da.csv
"""
ROWS = {
    "response": ["a good film", "", "the plot was very dull and bad", "great", "a good film"],
    "target": ["the film is good", "a cast", "the plot is dull", "great", "bad"],
    "prompt": ["an film is good", "the story", "", "great great", "a"],
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Config and tokenizer of a tiny XLM-R; its weights are in the checkpoints."""
    from transformers import XLMRobertaConfig

    folder = tmp_path_factory.mktemp("xlmr")
    XLMRobertaConfig(
        vocab_size=4 + len(WORDS), hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=34, type_vocab_size=1, pad_token_id=0,
        bos_token_id=2, eos_token_id=3, initializer_range=0.5,
    ).save_pretrained(folder)  # fmt: skip
    word_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def checkpoint(tmp_path, encoder):
    """``checkpoint(layer_norm=False, ...) -> folder`` as the hub's COMET repositories are."""

    def make(safe=False, **settings):
        from ruamel.yaml import YAML
        from transformers import AutoConfig, XLMRobertaModel

        (tmp_path / "checkpoints").mkdir()
        hparams = YAML(typ="safe").load(HPARAMS) | settings
        with (tmp_path / "hparams.yaml").open("w") as file:
            YAML(typ="safe").dump(hparams, file)
        torch.manual_seed(0)
        weights = XLMRobertaModel(AutoConfig.from_pretrained(encoder)).state_dict()
        weights = {f"encoder.model.{key}": value for key, value in weights.items()}
        for i in range(4):
            weights[f"layerwise_attention.scalar_parameters.{i}"] = torch.tensor([0.4 * i])
        weights["layerwise_attention.gamma"] = torch.tensor([1.3])
        weights["layerwise_attention.dropout_mask"] = torch.zeros(4)
        for place, (out, into) in {0: (24, 96), 3: (12, 24), 6: (1, 12)}.items():
            weights[f"estimator.ff.{place}.weight"] = torch.randn(out, into) / into**0.5
            weights[f"estimator.ff.{place}.bias"] = torch.randn(out)
        if safe:
            save_file(weights, tmp_path / "checkpoints" / "model.safetensors")
        else:
            saved = {"state_dict": weights, "epoch": 1, "hyper_parameters": hparams}
            torch.save(saved, tmp_path / "checkpoints" / "model.ckpt")
        return str(tmp_path), weights, hparams

    return make


def embedding(encoder, weights, hparams, text):
    """(16,) of one text alone."""
    from transformers import AutoConfig, XLMRobertaModel

    model = XLMRobertaModel(AutoConfig.from_pretrained(encoder)).eval()
    prefix = "encoder.model."
    model.load_state_dict(
        {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    )
    encoded = word_tokenizer()(text, return_tensors="pt")
    with torch.no_grad():
        states = model(**encoded, output_hidden_states=True).hidden_states
    shares = torch.tensor([0.0, 0.4, 0.8, 1.2]).softmax(0)
    if hparams.get("layer_transformation") == "sparsemax":
        shares = torch.tensor([0.0, 0.0, 0.3, 0.7])  # (.8 + t) + (1.2 + t) = 1, t = -.5
    mixed = 0
    for share, state in zip(shares, states, strict=True):
        if hparams.get("layer_norm", True):
            state = (state - state.mean()) / (state.var(correction=0) + 1e-12).sqrt()
        mixed = mixed + 1.3 * share * state
    if isinstance(hparams["layer"], int):
        mixed = states[hparams["layer"]]
    mixed = mixed[0]
    return {"avg": mixed.mean(0), "cls": mixed[0], "max": mixed.max(0).values}[hparams["pool"]]


def estimate(encoder, weights, hparams, response, target, prompt):
    mt, ref, src = (embedding(encoder, weights, hparams, t) for t in (response, target, prompt))
    x = torch.cat([mt, ref, mt * ref, abs(mt - ref), mt * src, abs(mt - src)])
    for place in (0, 3, 6):
        x = weights[f"estimator.ff.{place}.weight"] @ x + weights[f"estimator.ff.{place}.bias"]
        x = x.tanh() if place < 6 else x
    return (x.sigmoid() if hparams["final_activation"] else x).item()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"layer_norm": False, "layer_transformation": "sparsemax"},
        {"pool": "cls", "final_activation": "Sigmoid"},
        {"pool": "max", "layer": 2, "safe": True},
    ],
)
def test_comet_by_hand(checkpoint, encoder, settings):
    folder, weights, hparams = checkpoint(**settings)
    expected = [
        estimate(encoder, weights, hparams, *row) for row in zip(*ROWS.values(), strict=True)
    ]
    for size in (1, 3):
        spec = {"type": "comet", "model": folder, "encoder": encoder, "batch_size": size}
        assert make_reward(spec)(**ROWS) == pytest.approx(expected, abs=1e-5)
    assert len({round(x, 4) for x in expected}) == 5


def test_odd_texts_have_an_estimate(checkpoint, encoder):
    folder, *_ = checkpoint()
    reward = make_reward({"type": "comet", "model": folder, "encoder": encoder})
    odd = ["", " \n", "\ud800", "a\x00\x07", "漢字です。", "good " * 20_000]
    assert len(reward(odd, odd[::-1], prompt=odd)) == 6


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.0], [0.5, 0.5]),
        ([2.0, 0.0], [1.0, 0.0]),
        ([0.8, 1.2, 0.4], [0.3, 0.7, 0.0]),
        ([0.5, 0.3, 0.2, -1.0], [0.5, 0.3, 0.2, 0.0]),
    ],
)
def test_sparsemax(values, expected):
    assert sparsemax(torch.tensor(values)).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"class_identifier": "unified_metric"}, "class_identifier is 'unified_metric', not regre"),
        ({"encoder_model": "RemBERT"}, "encoder_model is 'RemBERT', not XLM-RoBERTa or BERT"),
        ({"hidden_sizes": [24]}, "encoder and checkpoint do not fit: estimator.ff"),
    ],
)
def test_another_kind_of_metric_is_refused(checkpoint, encoder, settings, says):
    folder, *_ = checkpoint(**settings)
    with pytest.raises(ModelError, match=says) as caught:
        make_reward({"type": "comet", "model": folder, "encoder": encoder})("good", "bad")
    assert "\n" not in str(caught.value)


class Sneaky:
    def __reduce__(self):
        return print, ("this ran",)


def test_only_tensors_of_a_checkpoint_are_loaded(checkpoint, encoder, capsys):
    folder, weights, _ = checkpoint()
    torch.save({"state_dict": weights, "x": Sneaky()}, f"{folder}/checkpoints/model.ckpt")
    with pytest.raises(ModelError, match=r"holds more than tensors.* as model.safetensors beside"):
        make_reward({"type": "comet", "model": folder, "encoder": encoder})("good", "bad")
    assert "this ran" not in capsys.readouterr().out
    save_file(weights, f"{folder}/checkpoints/model.safetensors")
    make_reward({"type": "comet", "model": folder, "encoder": encoder})("good", "bad")


def test_a_folder_that_is_no_checkpoint_is_refused_before_anything_loads(tmp_path):
    with pytest.raises(ConfigError, match=r"reward.model: there is no hparams.yaml in that folder"):
        make_reward({"type": "comet", "model": str(tmp_path)})
    (tmp_path / "hparams.yaml").write_text(HPARAMS)
    with pytest.raises(ConfigError, match="there is no checkpoints/model.ckpt in that folder"):
        make_reward({"type": "comet", "model": str(tmp_path)})
