"""The sentiment classifier: its split, its training, its quality and calibration."""

import copy

import pytest
import torch
from sklearn.metrics import accuracy_score, brier_score_loss, roc_auc_score
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from mht.config import RewardModelConfig
from mht.core.errors import DataError, ModelError
from mht.reward_models.calibration import calibration, rated_quality
from mht.reward_models.classifier import load_encoder, outputs, train_classifier
from mht.reward_models.judged import Rated, split_rated

GOOD = ["a warm and funny story", "a wonderful cast", "moving and beautiful", "an honest picture"]
BAD = ["a dull plot", "flat jokes", "the movie is bad", "no end in sight", "so slow"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, tiny_tokenizer):
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=tiny_tokenizer.pad_token_id,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.padding_side = "right"  # as encoders have it: their positions count from the left
    tokenizer.save_pretrained(folder)
    return str(folder)


def trained(encoder, rated=None, **changes):
    config = RewardModelConfig(**{"epochs": 8, "batch_size": 6, "lr": 3e-3} | changes)
    losses = []
    rated = rated or Rated((GOOD + BAD) * 4, ([1] * len(GOOD) + [0] * len(BAD)) * 4)
    model, tokenizer = train_classifier(
        encoder,
        rated,
        config,
        seed=0,
        device=torch.device("cpu"),
        log=lambda stats, step: losses.append(stats["reward_model/loss"]),
    )
    return model, tokenizer, losses


def p_positive(model, tokenizer, texts, **options):
    return outputs(model, tokenizer, texts, **options).softmax(-1)[:, 1].tolist()


# -- split ------------------------------------------------------------------------------------


def test_split_leaves_out_the_neutral_and_loses_nothing():
    texts = [f"text {i}" for i in range(100)]
    ratings = [(i - 50) / 20 for i in range(100)]
    train, held = split_rated(texts, ratings, neutral=0.5, holdout=0.2, seed=1)
    clear = {t: int(r > 0) for t, r in zip(texts, ratings, strict=True) if abs(r) > 0.5}
    found = dict(zip(train.texts + held.texts, train.labels + held.labels, strict=True))
    assert found == clear
    assert len(train.texts) + len(held.texts) == len(clear)
    assert len(held.texts) == round(0.2 * len(clear))
    assert split_rated(texts, ratings, neutral=0.5, holdout=0.2, seed=1) == (train, held)
    assert split_rated(texts, ratings, neutral=0.5, holdout=0.2, seed=2) != (train, held)


@pytest.mark.parametrize(
    "ratings", [[], [2.0] * 50, [0.1, -0.1] * 50, [2.0] * 50 + [-2.0], [2.0, -2.0]]
)
def test_split_needs_both_kinds_on_both_sides(ratings):
    texts = [f"text {i}" for i in range(len(ratings))]
    with pytest.raises(DataError, match=r"data\.labels: .* rated texts .*reward_model\.neutral"):
        split_rated(texts, ratings, neutral=0.5, holdout=0.1, seed=0)


# -- figures ----------------------------------------------------------------------------------


def test_quality_by_hand():
    """Bins .1-.2 (one), .6-.7 (two), .9-1 (one): error .15/4 + 2/4 * |.65 - .5| + .05/4."""
    probabilities, labels = [0.15, 0.62, 0.68, 0.95], [0, 0, 1, 1]
    found, _ = rated_quality(probabilities, labels)
    assert found["accuracy"] == 0.75
    assert found["auc"] == 1.0
    assert found["brier"] == pytest.approx((0.15**2 + 0.62**2 + 0.32**2 + 0.05**2) / 4)
    assert found["calibration_error"] == pytest.approx(0.15 / 4 + 0.15 / 2 + 0.05 / 4)
    assert found["held_out_texts"] == 4


def test_quality_against_sklearn():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(200, generator=generator)
    labels = (torch.rand(200, generator=generator) < probabilities).long()
    found, _ = rated_quality(probabilities.tolist(), labels.tolist())
    assert found["auc"] == pytest.approx(roc_auc_score(labels, probabilities))
    assert found["brier"] == pytest.approx(brier_score_loss(labels, probabilities))
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, probabilities > 0.5))
    assert found["calibration_error"] < 0.15  # they are calibrated by the way they were made


def test_calibration_bins():
    rows = calibration([0.0, 0.05, 1.0, 0.95, 0.3], [0, 1, 1, 1, 0])
    assert [round(r["predicted"], 3) for r in rows] == [0.025, 0.3, 0.975]
    assert [r["observed"] for r in rows] == [0.5, 0.0, 1.0]
    assert sum(r["share"] for r in rows) == pytest.approx(1)


# -- training ---------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_tells_good_from_bad(encoder):
    model, tokenizer, losses = trained(encoder)
    assert len(losses) == 8 * 6
    assert sum(losses[-5:]) < sum(losses[:5]) / 2
    assert not model.training
    assert model.config.id2label == {0: "negative", 1: "positive"}
    good, bad = (p_positive(model, tokenizer, t, max_tokens=16) for t in (GOOD, BAD))
    assert min(good) > max(bad)


def test_the_seed_decides(encoder):
    runs = [trained(encoder, epochs=1)[2] for _ in range(2)]
    assert runs[0] == runs[1]


def test_batching_changes_no_probability(encoder):
    model, tokenizer, _ = trained(encoder, epochs=1)
    together = p_positive(model, tokenizer, GOOD + BAD, max_tokens=16)
    alone = [p_positive(model, tokenizer, [t], max_tokens=16)[0] for t in GOOD + BAD]
    assert together == pytest.approx(alone, abs=1e-5)
    pairs = p_positive(model, tokenizer, GOOD + BAD, max_tokens=16, batch_size=2)
    assert together == pytest.approx(pairs, abs=1e-5)


@pytest.mark.parametrize("unfrozen", [0, 1, 2])
def test_only_the_top_layers_train(encoder, unfrozen):
    before = load_encoder(encoder)[0].base_model.state_dict()
    model, _, _ = trained(encoder, epochs=1, num_layers_unfrozen=unfrozen)
    changed = {n for n, p in model.base_model.state_dict().items() if not torch.equal(p, before[n])}
    layers = {int(n.split(".")[2]) for n in changed if n.startswith("encoder.layer.")}
    assert layers == set(range(3 - unfrozen, 3))
    assert not any(n.startswith("embeddings") for n in changed)


def test_layers_of_another_architecture(tmp_path, tiny_tokenizer):
    config = DistilBertConfig(
        vocab_size=len(tiny_tokenizer), dim=32, n_layers=2, n_heads=4, hidden_dim=64
    )
    DistilBertModel(config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    model, _, _ = trained(str(tmp_path), epochs=1, num_layers_unfrozen=1)
    trains = {
        n.split(".")[3] for n, p in model.named_parameters() if p.requires_grad and "layer." in n
    }
    assert trains == {"1"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_layers_unfrozen": 4}, r"reward_model\.num_layers_unfrozen: 4 .* 3"),
        ({"max_tokens": 65}, r"reward_model\.max_tokens: 65 is more than the encoder's 64"),
    ],
)
def test_settings_that_do_not_fit_the_encoder(encoder, changes, says):
    with pytest.raises(ModelError, match=says):
        trained(encoder, **changes)


def test_what_is_no_encoder(tmp_path):
    with pytest.raises(ModelError, match=r"reward_model\.encoder: .* holds no encoder"):
        load_encoder(str(tmp_path))
