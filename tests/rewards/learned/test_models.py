"""Rewards behind models, on tiny random checkpoints, against the libraries called directly."""

import functools
import json
import math
import shutil

import pytest
import torch

from mht.core.errors import ConfigError, ModelError
from mht.data.text.sample import Sample
from mht.rewards import make_reward
from mht.rewards.models import shared as models
from mht.rewards.models.sequence_classifier import classifier
from tests.support.classifiers import (
    TEXTS,
    WORDS,
    direct,
    error_of,
    save_bert,
)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """``bert("negative", "positive") -> folder``, made once each."""

    @functools.cache
    def make(*labels, **config):
        return save_bert(tmp_path_factory.mktemp("bert"), labels, **config)

    return make


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_sentiment_is_the_probability_of_its_target(bert, batch_size):
    folder = bert("negative", "positive")
    spec = {"type": "sentiment", "model": folder, "batch_size": batch_size}
    expected = [direct(folder, text).softmax(-1)[1].item() for text in TEXTS]
    assert make_reward(spec)(TEXTS) == pytest.approx(expected, abs=1e-6)
    other = make_reward({**spec, "target": "NEGATIVE"})(TEXTS)
    assert other == pytest.approx([1 - p for p in expected], abs=1e-6)
    wins = make_reward({**spec, "scale": False})(TEXTS)
    assert wins == [float(p > 0.5) for p in expected]
    assert len(set(expected)) == 4  # the random model tells the texts apart


def test_sentiment_of_the_full_text(bert):
    folder = bert("negative", "positive")
    spec = {"type": "sentiment", "model": folder, "text": "full"}
    expected = direct(folder, "the movie is good").softmax(-1)[1].item()
    assert make_reward(spec)(" is good", prompt="the movie") == pytest.approx(expected, abs=1e-6)


def test_longer_texts_are_cut(bert):
    folder = bert("negative", "positive")
    long = " ".join(WORDS * 20)
    spec = {"type": "sentiment", "model": folder}
    assert make_reward(spec)(long) == make_reward(spec)(" ".join((WORDS * 20)[:30]))
    assert make_reward({**spec, "max_tokens": 4})(long) == make_reward(spec)(" ".join(WORDS[:2]))


def test_several_targets_share_one_forward_pass(bert, monkeypatch):
    folder = bert("joy", "anger", "sadness", problem_type="multi_label_classification")
    parts = {t: {"type": "sentiment", "model": folder, "target": t} for t in ("joy", "anger")}
    reward = make_reward({"type": "weighted_sum", "components": parts})
    model, calls = classifier(folder, "auto").model, []
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda **x: calls.append(len(x["input_ids"])) or forward(**x)
    )
    found = reward.evaluate([Sample("", text) for text in TEXTS]).components
    assert calls == [4]  # five texts, of which two are the same, for two components
    joy, anger, _ = direct(folder, TEXTS[0]).sigmoid().tolist()
    assert found["reward.joy"][0] == pytest.approx(joy, abs=1e-6)
    assert found["reward.anger"][0] == pytest.approx(anger, abs=1e-6)


def test_an_unknown_target_lists_the_labels(bert):
    reward = make_reward(
        {"type": "min", "components": {"x": {"type": "sentiment", "model": bert("neg", "pos")}}}
    )
    with pytest.raises(ModelError) as caught:
        reward("good")
    assert str(caught.value) == (
        "reward.x (sentiment): the model has no label 'positive': set target to one of neg, pos"
    )


def test_reward_model_with_one_output(bert):
    folder = bert("score")
    spec = {"type": "reward_model", "model": folder}
    expected = [direct(folder, text).item() for text in TEXTS]
    assert make_reward(spec)(TEXTS) == pytest.approx(expected, abs=1e-5)
    squashed = make_reward({**spec, "activation": "sigmoid"})(TEXTS)
    assert squashed == pytest.approx([1 / (1 + math.exp(-x)) for x in expected], abs=1e-6)
    pair = make_reward({**spec, "text": "pair"})("good", prompt="the film is")
    assert pair == pytest.approx(direct(folder, "the film is", "good").item(), abs=1e-5)
    with pytest.raises(ModelError, match="has one output: use the type reward_model"):
        make_reward({"type": "sentiment", "model": folder})("good")
    with pytest.raises(ModelError, match="has one output and no labels: leave target"):
        make_reward({**spec, "target": "score"})("good")


def test_reward_model_gives_the_log_odds_of_a_label(bert):
    folder = bert("bad", "fair", "good")
    spec = {"type": "reward_model", "model": folder, "target": "good"}
    p = direct(folder, TEXTS[1]).softmax(-1)[2].item()
    assert make_reward(spec)(TEXTS[1]) == pytest.approx(math.log(p / (1 - p)), abs=1e-5)
    assert make_reward({**spec, "activation": "sigmoid"})(TEXTS[1]) == pytest.approx(p, abs=1e-6)
    with pytest.raises(ModelError, match="has several outputs: set target to one of bad, fair, g"):
        make_reward({"type": "reward_model", "model": folder})("good")


@pytest.mark.parametrize(
    ("aggregation", "value"),
    [
        ("p_e_minus_p_c", lambda c, e, n: (e - c + 1) / 2),
        ("p_e", lambda c, e, n: e),
        ("p_e_plus_half_neutral", lambda c, e, n: e + n / 2),
    ],
)
def test_truth_nli_finds_its_labels_by_name(bert, aggregation, value):
    folder = bert("CONTRADICTION", "ENTAILMENT", "neutral")
    reward = make_reward({"type": "truth_nli", "model": folder, "aggregation": aggregation})
    shares = direct(folder, "the film is good", "the movie is great").softmax(-1).tolist()
    found = reward(["the movie is great", " ", "good"], ["the film is good", "a cast", ""])
    assert found == pytest.approx([value(*shares), 0.5, 0.5], abs=1e-6)
    by_prompt = make_reward(
        {"type": "truthfulness", "model": folder, "aggregation": aggregation, "premise": "prompt"}
    )
    assert by_prompt("the movie is great", "x", prompt="the film is good") == found[0]


@pytest.mark.parametrize("labels", [("LABEL_0", "LABEL_1", "LABEL_2"), ("entailment", "neutral")])
def test_truth_nli_refuses_other_classifiers(bert, labels):
    with pytest.raises(ModelError, match="is no three-way NLI classifier: its labels are "):
        make_reward({"type": "truth_nli", "model": bert(*labels)})("a", "b")


def sliding_loss(folder, text, stride, max_length):
    """Mean loss by the loop of the transformers documentation, token by token; BOS first."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
    losses, done = [], 1
    for start in range(0, ids.shape[1], stride):
        end = min(start + max_length, ids.shape[1])
        with torch.no_grad():
            logits = model(ids[:, start:end]).logits.log_softmax(-1)[0]
        for at in range(done, end):
            losses.append(-logits[at - 1 - start, ids[0, at]].item())
        done = max(done, end)
        if end == ids.shape[1]:
            break
    return sum(losses) / len(losses), len(losses)


@pytest.mark.parametrize(("stride", "max_length"), [(64, 128), (5, 12), (1, 2), (11, 12)])
@pytest.mark.parametrize("batch_size", [1, 16])
def test_perplexity_is_the_sliding_window_loss(tiny_model_dir, stride, max_length, batch_size):
    folder = str(tiny_model_dir("gpt2"))
    texts = ["the film is a warm and funny story", "x", "so slow " * 9, "x"]
    spec = {
        "type": "perplexity",
        "model": folder,
        "stride": stride,
        "max_length": max_length,
        "batch_size": batch_size,
    }
    losses = [sliding_loss(folder, text, stride, max_length)[0] for text in texts]
    forms = {
        "raw": [math.exp(x) for x in losses],
        "neg_loss": [-x for x in losses],
        "exp_neg_loss": [math.exp(-x) for x in losses],
    }
    for mode, expected in forms.items():
        found = make_reward({**spec, "reward_mode": mode})(texts)
        assert found == pytest.approx(expected, rel=1e-4)
    assert make_reward(spec)(texts) == pytest.approx(forms["exp_neg_loss"], rel=1e-4)


@pytest.mark.parametrize("length", range(1, 14))
@pytest.mark.parametrize(
    ("stride", "max_length"), [(1, 2), (2, 2), (3, 3), (2, 5), (4, 5), (20, 20)]
)
def test_windows_score_every_token_but_the_first_once(length, stride, max_length):
    from mht.rewards.models.causal_lm import windows

    ids = list(range(length))
    found = windows(7, ids, stride, max_length)
    scored = [token for w in found for token in w.ids[len(w.ids) - w.scored :]]
    assert scored == ids[1:]
    assert all(len(w.ids) <= max_length and w.scored < len(w.ids) for w in found)


def test_perplexity_of_nothing_is_that_of_knowing_nothing(tiny_model_dir):
    from transformers import AutoConfig

    folder = str(tiny_model_dir("gpt2"))
    reward = make_reward({"type": "perplexity", "model": folder, "reward_mode": "raw"})
    vocabulary = AutoConfig.from_pretrained(folder).vocab_size
    assert reward(["", "good"])[0] == pytest.approx(vocabulary)


def test_perplexity_windows_must_fit(tiny_model_dir):
    with pytest.raises(ConfigError, match="stride must not be above max_length, got stride=9"):
        make_reward({"type": "perplexity", "stride": 9, "max_length": 8})
    reward = make_reward(
        {"type": "perplexity", "model": str(tiny_model_dir("gpt2")), "max_length": 1024}
    )
    with pytest.raises(ModelError, match=r"max_length 1024 is above the 256 tokens that model"):
        reward("good")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("encoder"), kind="BertModel")


def test_cosine_sts_is_the_mapped_cosine_of_the_embeddings(encoder):
    from sentence_transformers import SentenceTransformer

    direct = SentenceTransformer(encoder, device="cpu")
    pairs = list(zip(TEXTS, TEXTS[1:] + TEXTS[:1], strict=True))
    expected = []
    for a, b in pairs:
        x, y = torch.tensor(direct.encode([a])[0]), torch.tensor(direct.encode([b])[0])
        expected.append((torch.cosine_similarity(x, y, dim=0).item() + 1) / 2)
    for alias in ("cosine_sts", "sts"):
        reward = make_reward({"type": alias, "model": encoder, "batch_size": 2})
        assert reward(*zip(*pairs, strict=True)) == pytest.approx(expected, abs=1e-5)
    assert make_reward({"type": "sts", "model": encoder})("good", "good") == pytest.approx(1)


ODD = [
    "",
    " \n",
    "\ud800 good",
    "a\x00b \x07",
    "漢字 عربى 🎬",
    "good film " * 10_000,
    "x" * 100_000,
]


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_encoders_take_odd_texts(encoder, text):
    for spec in ({"type": "cosine_sts", "model": encoder},
                 {"type": "bertscore", "model_type": encoder, "num_layers": 2}):  # fmt: skip
        reward = make_reward(spec)
        low, high = reward.bounds()
        scores = reward([text, "good", text], ["good", text, text])
        assert all(low <= score <= high + 1e-6 for score in scores)


def test_bertscore_is_bert_scores(encoder):
    from bert_score import BERTScorer

    filled = [text for text in TEXTS if text]
    direct = BERTScorer(model_type=encoder, num_layers=2, device="cpu")
    _, _, expected = direct.score(filled, filled[::-1])
    reward = make_reward({"type": "bertscore", "model_type": encoder, "num_layers": 2})
    assert reward(filled, filled[::-1]) == pytest.approx(expected.tolist(), abs=1e-5)
    assert reward(["", "good"], ["good", ""]) == [0, 0]
    with pytest.raises(ModelError, match="knows no best layer of .*: set num_layers"):
        make_reward({"type": "bertscore", "model_type": encoder})("a", "b")
    with pytest.raises(ModelError, match="Invalid num_layers"):
        make_reward({"type": "bertscore", "model_type": encoder, "num_layers": 9})("a", "b")
    with pytest.raises(ModelError, match="set rescale_with_baseline to false"):
        make_reward(
            {
                "type": "bertscore",
                "model_type": encoder,
                "num_layers": 2,
                "rescale_with_baseline": True,
            }
        )("a", "b")


def test_a_model_that_can_not_be_had_says_what_to_set(tmp_path, encoder):
    hub = error_of({"type": "sentiment"})  # building it was no error: models load on first use
    assert "distilbert/distilbert-base-uncased-finetuned-sst-2-english" in hub
    assert "the hub gives no such model" in hub and "`hf download distil" in hub
    assert "no such folder './nowhere'" in error_of({"type": "sentiment", "model": "./nowhere"})
    (tmp_path / "x").mkdir()
    empty = error_of({"type": "sts", "model": str(tmp_path / "x")})
    assert "is no sentence encoder: it has no config.json" in empty
    headless = error_of({"type": "sentiment", "model": encoder})
    assert "it has no weights for classifier.bias, classifier.weight" in headless
    assert "no device 'cuda:9' here" in error_of(
        {"type": "sentiment", "model": encoder, "device": "cuda:9"}
    )


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"),
        ("config.json", "{}"),
        ("model.safetensors", "no tensors"),
        ("model.safetensors", None),
    ],
)
def test_a_damaged_folder_is_one_clear_line(tmp_path, bert, file, content):
    folder = tmp_path / "damaged"
    shutil.copytree(bert("negative", "positive"), folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    said = error_of({"type": "sentiment", "model": str(folder)})
    assert "does not load as a sequence classifier" in said


def test_pickled_weights_are_not_loaded(tmp_path, bert):
    folder = tmp_path / "pickled"
    shutil.copytree(bert("negative", "positive"), folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    assert "safetensors" in error_of({"type": "sentiment", "model": str(folder)})


def test_a_model_is_loaded_once_and_again_when_its_files_change(tmp_path, bert):
    folder = tmp_path / "model"
    shutil.copytree(bert("negative", "positive"), folder)
    spec = {"type": "sentiment", "model": str(folder)}
    first = classifier(str(folder), "auto")
    make_reward(spec)("good")
    assert classifier(str(folder), "cpu") is first or torch.cuda.is_available()
    assert classifier(str(folder), "auto") is first
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "positive", "1": "negative"}
    config["label2id"] = {"positive": 0, "negative": 1}
    (folder / "config.json").write_text(json.dumps(config))
    before = first.logits(["good"], 1).softmax(-1)[0, 0].item()
    assert make_reward(spec)("good") == pytest.approx(before)


def test_scoring_draws_no_random_numbers(tmp_path, bert):
    folder = tmp_path / "model"
    shutil.copytree(bert("negative", "positive"), folder)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    make_reward({"type": "sentiment", "model": str(folder)})("good")
    assert torch.equal(torch.rand(3), expected)


def test_a_text_without_tokens_is_scored_by_a_decoder_too(tmp_path, tiny_tokenizer):
    from transformers import GPT2Config, GPT2ForSequenceClassification

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tiny_tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=64,
        num_labels=1, pad_token_id=tiny_tokenizer.pad_token_id,
    )  # fmt: skip
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    reward = make_reward({"type": "reward_model", "model": str(tmp_path)})
    together = reward(["", "a good film", "bad"])
    assert together == pytest.approx([reward(t) for t in ("", "a good film", "bad")], abs=1e-5)


def test_batches_hold_everything_once_within_the_limits():
    lengths = [5, 1, 9, 3, 9, 2, 40]
    found = list(models.batches(lengths, 3, tokens=20))
    assert sorted(i for batch in found for i in batch) == list(range(7))
    assert all(len(b) <= 3 for b in found)
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= 20 for b in found)
