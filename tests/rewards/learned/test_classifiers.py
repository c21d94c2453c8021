"""Rewards of classifiers on tiny checkpoints shaped and labelled like the real default models."""

import functools
import math
import shutil
from functools import lru_cache

import pytest
import torch

from mht.core.errors import ConfigError, ModelError
from mht.data.text.sample import Sample
from mht.rewards import make_reward
from mht.rewards.base import REWARDS
from mht.rewards.learned import presets
from mht.rewards.learned.classifier import LabelReward
from mht.rewards.models.sequence_classifier import classifier
from tests.support.classifiers import (
    ORIGINAL,
    TEXTS,
    error_of,
    save,
    save_bert,
)

GO_EMOTIONS = """admiration amusement anger annoyance approval caring confusion curiosity desire
    disappointment disapproval disgust embarrassment excitement fear gratitude grief joy love
    nervousness optimism pride realization relief remorse sadness surprise neutral"""
EMOTIONS = GO_EMOTIONS.split()
UNBIASED = ["toxicity", "severe_toxicity", "obscene", "identity_attack", "insult", "threat"]
MULTI = {"problem_type": "multi_label_classification"}
REAL = {  # of the default models: architecture, labels in their order, what else their config says
    "sentiment": ("DistilBert", ["NEGATIVE", "POSITIVE"], {}),
    "emotion": ("Roberta", EMOTIONS, MULTI),
    "sarcasm": ("Roberta", ["non_irony", "irony"], {}),
    "formality": ("Roberta", ["informal", "formal"], {}),
    "toxicity": ("Bert", ORIGINAL, MULTI),
    "detoxify": ("Roberta", UNBIASED, {"function_to_apply": "sigmoid"}),
    "hate_speech": ("Roberta", ["nothate", "hate"], {}),
    "offensiveness": ("Roberta", ["non-offensive", "offensive"], {}),
    "bias": ("Roberta", ["BIASED", "NEUTRAL"], {}),
}
TARGETS = dict(zip(REAL, (1, 17, 1, 1, 0, 0, 1, 1, 0), strict=True))
ODD = ["", " \n", "\ud800 good", "a\x00b \x07", "漢字 \u202e é 🎬", "good film " * 10_000, "good"]


@lru_cache
def loaded(folder):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return AutoTokenizer.from_pretrained(folder), model


def direct(folder, text, pair=None):
    """The logits of one text or pair alone, without any of our code."""
    tokenizer, model = loaded(folder)
    texts = [text] if pair is None else [(text, pair)]
    with torch.no_grad():
        return model(**tokenizer(texts, return_tensors="pt")).logits[0]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """``real("bias") -> folder`` of a model like the type's default one, made once each."""

    @functools.cache
    def make(name):
        kind, labels, config = REAL[name]
        return save(tmp_path_factory.mktemp(name), kind, labels, **config)

    return make


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """``bert("a", "b") -> folder`` of a tiny BERT with these labels, made once each."""

    @functools.cache
    def make(*labels, **config):
        return save(tmp_path_factory.mktemp("bert"), "Bert", labels, **config)

    return make


# -- presets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
def test_a_preset_gives_its_labels_probability(real, name):
    folder, at = real(name), TARGETS[name]
    shares = [direct(folder, text) for text in TEXTS]
    independent = bool(REAL[name][2])
    shares = [x.sigmoid() if independent else x.softmax(-1) for x in shares]
    expected = [x[at].item() for x in shares]
    spec = {"type": name, "model": folder, "batch_size": 2}
    assert make_reward(spec)(TEXTS) == pytest.approx(expected, abs=1e-6)
    assert len(set(expected)) == 4  # the random model tells the texts apart
    wins = [float(x[at] >= 0.5 if independent else x.argmax() == at) for x in shares]
    assert make_reward({**spec, "scale": False})(TEXTS) == wins
    inverted = make_reward({**spec, "invert": True})(TEXTS)
    assert inverted == pytest.approx([1 - p for p in expected], abs=1e-6)
    full = make_reward({**spec, "text": "full"})(" is good", prompt="the movie")
    assert full == make_reward(spec)("the movie is good")


def test_families_and_directions_of_the_presets():
    found = {name: make_reward({"type": name}) for name in REAL}
    low = {name for name, reward in found.items() if reward.direction() == "low"}
    assert low == {"toxicity", "detoxify", "hate_speech", "offensiveness", "bias"}
    assert low == {name for name, reward in found.items() if reward.family == "safety"}
    assert make_reward({"type": "emotion"}).direction() == "either"
    assert make_reward({"type": "sentiment"}).direction() == "high"
    absent = [("bias", "NEUTRAL"), ("hate_speech", "NOT-HATE"), ("offensiveness", "NOT")]
    for name, target in absent:
        assert make_reward({"type": name, "target": target}).direction() == "high"
    assert all(reward.bounds() == (0.0, 1.0) for reward in found.values())


def test_detoxifys_names_work_with_each_of_its_models(real, bert):
    original, one = real("toxicity"), bert("toxic")
    assert make_reward({"type": "toxicity"}).models() == ("unitary/toxic-bert",)
    unbiased = make_reward({"type": "detoxify", "model": "unbiased"}).models()
    assert unbiased == ("unitary/unbiased-toxic-roberta@refs/pr/2",)
    p = direct(original, "a good film").sigmoid()
    for target, at in [("toxicity", 0), ("severe-toxicity", 1), ("Identity Attack", 5)]:
        reward = make_reward({"type": "toxicity", "model": original, "target": target})
        assert reward("a good film") == pytest.approx(p[at].item(), abs=1e-6)
    single = direct(one, "a good film").sigmoid().item()  # as the multilingual one is
    reward = make_reward({"type": "toxicity", "model": one})
    assert reward("a good film") == pytest.approx(single, abs=1e-6)


def test_a_name_of_its_own_comes_before_another_spelling(bert):
    folder = bert("toxic", "toxicity", "other")
    p = direct(folder, "good").softmax(-1)
    for target, at in [("toxic", 0), ("toxicity", 1)]:
        reward = make_reward({"type": "toxicity", "model": folder, "target": target})
        assert reward("good") == pytest.approx(p[at].item(), abs=1e-6)


# -- targets and labels -------------------------------------------------------------------------


def test_several_targets_are_one_event(real, bert):
    folder, several = bert("joy", "love", "anger"), ["joy", "love", "JOY"]
    p = [direct(folder, text).softmax(-1) for text in TEXTS]
    spec = {"type": "emotion", "model": folder, "target": several}
    assert make_reward(spec)(TEXTS) == pytest.approx([1 - x[2].item() for x in p], abs=1e-6)
    wins = make_reward({**spec, "scale": False})(TEXTS)
    assert wins == [float(x.argmax() != 2) for x in p]
    p = [direct(real("toxicity"), text).sigmoid() for text in TEXTS]
    spec = {"type": "toxicity", "model": real("toxicity"), "target": ["threat", "insult"]}
    expected = [max(x[3].item(), x[4].item()) for x in p]
    assert make_reward(spec)(TEXTS) == pytest.approx(expected, abs=1e-6)


def test_a_threshold_in_place_of_the_likeliest(bert):
    folder = bert("nothate", "hate")
    p = [direct(folder, text).softmax(-1)[1].item() for text in TEXTS]
    level = sorted(set(p))[2]
    spec = {"type": "hate_speech", "model": folder, "scale": False, "threshold": level - 1e-4}
    found = make_reward(spec)(TEXTS)
    assert found == [float(x >= level - 1e-4) for x in p] and 0 < sum(found) < len(p)
    with pytest.raises(ConfigError, match=r"reward.threshold: needs scale: false, got 0.3 with"):
        make_reward({"type": "bias", "threshold": 0.3})
    with pytest.raises(ConfigError, match=r"reward.threshold: should be less than or equal to 1"):
        make_reward({"type": "bias", "threshold": 3.0, "scale": False})


def test_numbered_labels_get_names(bert):
    folder = bert("LABEL_0", "LABEL_1")
    spec = {"type": "hate_speech", "model": folder}
    assert "the model has no label 'hate', only numbered ones (LABEL_0, LABEL_1): set" in error_of(
        spec
    )
    p = direct(folder, "good").softmax(-1)
    named = {**spec, "labels": ["Hate", "fine"]}
    assert make_reward(named)("good") == pytest.approx(p[0].item(), abs=1e-6)
    by_number = make_reward({**spec, "target": "label_1"})("good")
    assert by_number == pytest.approx(p[1].item(), abs=1e-6)
    wrong = error_of({**spec, "labels": ["a", "b", "hate"]})
    assert wrong.endswith("labels has 3 names, but the model has 2 outputs: LABEL_0, LABEL_1")


def test_an_unknown_label_lists_those_there_are(real):
    said = error_of({"type": "bias", "model": real("bias"), "target": ["biased", "rude"]})
    assert said == (
        "reward (bias): the model has no label 'rude': set target to one of BIASED, NEUTRAL"
    )


def test_activation_where_the_config_says_it_wrong(bert):
    folder, one = bert("toxic", "severe_toxic"), bert("LABEL_0")
    p = direct(folder, "good").sigmoid()[0].item()
    spec = {"type": "toxicity", "model": folder, "activation": "sigmoid"}
    assert make_reward(spec)("good") == pytest.approx(p, abs=1e-6)
    single = make_reward({**spec, "model": one})("good")
    assert single == pytest.approx(direct(one, "good").sigmoid().item(), abs=1e-6)
    for activation in ("auto", "softmax"):
        said = error_of({**spec, "model": one, "activation": activation})
        assert "has one output: use the type reward_model, or set activation to sigmoid" in said


NEED_PROBABILITIES = [
    {"type": "sentiment"},
    {"type": "toxicity", "target": "positive", "scale": False},
    {"type": "classifier", "target": "positive"},
    {"type": "qa_relevance"},
    {"type": "qa_relevance", "target": "positive"},
    {"type": "legal_validity", "target": "positive"},
    {"type": "spelling_grammar", "method": "acceptability", "label": "positive"},
    {"type": "truth_nli"},
    {"type": "topic_consistency", "method": "zero_shot", "topics": ["film", "plot"]},
]


@pytest.mark.parametrize("labels", [("LABEL_0",), ("positive",), ("negative", "positive")])
@pytest.mark.parametrize("spec", NEED_PROBABILITIES, ids=str)
def test_a_regression_head_is_no_probability(bert, spec, labels):
    folder = bert(*labels, problem_type="regression")
    reward = make_reward({**spec, "model": folder})
    with pytest.raises(
        ModelError, match=r"^reward \(.*\): the model has a regression head"
    ) as said:
        reward.evaluate([Sample("is it good", "a good film", "a good film")])
    assert "\n" not in str(said.value) and "use the type reward_model" in str(said.value)


def test_a_regression_head_is_a_score(bert):
    one, two = bert("quality", problem_type="regression"), bert("a", "b", problem_type="regression")
    reward = make_reward({"type": "reward_model", "model": one})
    assert reward("good") == pytest.approx(direct(one, "good").item(), abs=1e-6)
    named = make_reward({"type": "reward_model", "model": two, "target": "b"})
    assert named("good") == pytest.approx(direct(two, "good")[1].item(), abs=1e-6)
    meant = {"type": "sentiment", "model": one, "target": "quality", "activation": "sigmoid"}
    assert make_reward(meant)("good") == pytest.approx(
        direct(one, "good").sigmoid().item(), abs=1e-6
    )


def test_any_classifier(bert):
    folder = bert("sports", "film", "law")
    reward = make_reward({"type": "classifier", "model": folder, "target": "film"})
    p = direct(folder, "a good film").softmax(-1)[1].item()
    assert reward("a good film") == pytest.approx(p, abs=1e-6)
    with pytest.raises(ConfigError) as caught:
        make_reward({"type": "classifier", "target": []})
    model, target = caught.value.problems
    assert model == "reward.model: is required and missing" and "reward.target: " in target


# -- one pass, odd texts ------------------------------------------------------------------------


def test_components_of_all_kinds_on_one_model_share_one_forward_pass(real, monkeypatch):
    folder = real("toxicity")
    parts = {
        "toxic": {"type": "toxicity", "model": folder},
        "insult": {"type": "detoxify", "model": folder, "target": "insult", "invert": True},
        "hate": {"type": "hate_speech", "model": folder, "target": "identity_hate"},
        "mood": {"type": "sentiment", "model": folder, "target": ["obscene", "threat"]},
        "learned": {"type": "reward_model", "model": folder, "target": "toxic"},
    }
    nested = {"type": "product", "components": {k: parts.pop(k) for k in ("hate", "mood")}}
    reward = make_reward({"type": "weighted_sum", "components": {**parts, "nested": nested}})
    shared, calls = classifier(folder, "auto"), []
    shared._last = (None, None)  # of another test
    model = shared.model
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda **x: calls.append(len(x["input_ids"])) or forward(**x)
    )
    batch = [Sample("", text) for text in TEXTS]
    found = reward.evaluate(batch).components
    assert calls == [4]  # five texts, of which two are the same, for five components
    logits = direct(folder, TEXTS[1])
    assert found["reward.learned"][1] == pytest.approx(logits[0].item(), abs=1e-5)
    assert found["reward.nested.hate"][1] == pytest.approx(logits[5].sigmoid().item(), abs=1e-6)
    reward.evaluate(batch[::-1])  # the same texts in another order
    assert calls == [4]
    reward.evaluate(batch[:2])
    assert calls == [4, 2]


SPECS = [
    {"type": "toxicity"},
    {"type": "sentiment", "target": "insult", "text": "full", "scale": False},
    {"type": "qa_relevance", "target": "toxic"},
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec["type"])
def test_odd_texts_are_scored(real, spec):
    reward = make_reward({**spec, "model": real("toxicity")})
    scores = reward(ODD, prompt="is the film good \udfff")
    assert all(0 <= score <= 1 for score in scores)
    assert scores[-1] == pytest.approx(reward("good", prompt="is the film good ?"), abs=1e-6)


@pytest.mark.parametrize("sides", [(30, 40), (2, 400), (400, 2), (20_000, 20_000)])
def test_a_long_pair_is_cut_as_its_tokenizer_would_cut_it(real, sides):
    model = classifier(real("toxicity"), "cpu")
    first, second = "good film " * sides[0], "a dull plot " * sides[1]
    (ids,) = model._encode([(first, second)], 16)["input_ids"]
    enough = first[:2_000], second[:2_000]  # what is cut off takes the tokenizer minutes
    assert ids == model.tokenizer(*enough, truncation=True, max_length=16)["input_ids"]
    assert len(ids) == 16


def test_too_few_tokens_are_refused(real):
    spec = {"type": "toxicity", "model": real("toxicity"), "max_tokens": 2}
    assert "max_tokens 2 leaves no room for a text beside the model's 2 special" in error_of(spec)
    assert make_reward({**spec, "max_tokens": 3})("good film") == pytest.approx(
        make_reward({**spec, "max_tokens": None})("good"), abs=1e-6
    )


# -- models of the hub --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*REAL, "bleurt", "qa_relevance", "topic_consistency"])
def test_a_default_model_that_is_not_here_is_one_line(name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (model,) = make_reward({"type": name}).models()
    repository, _, revision = model.partition("@")
    said = error_of({"type": name})
    assert f"no folder {model!r} here" in said and "set the folder of a " in said
    more = f" --revision {revision}" if revision else ""
    assert f"run `hf download {repository}{more}` with a network" in said


def cached(cache, folder, name, revision):
    """The folder as the hub's cache has a revision of a model."""
    place = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / "0a1b")
    reference = place / "refs" / revision
    reference.parent.mkdir(parents=True)
    reference.write_text("0a1b")


def test_a_revision_of_the_hub_and_its_numbered_labels(bert, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder, name = bert("LABEL_0", "LABEL_1"), "helinivan/english-sarcasm-detector"
    cached(tmp_path, folder, name, "refs/pr/4")
    reward = make_reward({"type": "sarcasm", "model": f"{name}@refs/pr/4"})
    p = direct(folder, "good").softmax(-1)[1].item()
    assert reward("good") == pytest.approx(p, abs=1e-6)
    assert f"no folder '{name}@v9' here" in error_of({"type": "sarcasm", "model": f"{name}@v9"})


def test_weights_that_only_a_pull_request_has(monkeypatch, tmp_path):
    """The hub has the model, but pickled: the line names the revision to look for."""
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
    said = error_of({"type": "bias", "model": "acme/bias"})
    assert "the hub has no safetensors of 'acme/bias': name a revision that has them" in said
    assert "such as acme/bias@refs/pr/1" in said


def test_every_preset_is_named_and_documented():
    classes = {cls for cls in vars(presets).values() if isinstance(cls, type)}
    made = {cls for cls in classes if issubclass(cls, LabelReward) and "type_name" in vars(cls)}
    assert made == {REWARDS.get(name) for name in [*REAL, "classifier"]}
    for cls in made:
        assert cls.__doc__.startswith("Probability ") and cls.needs
        assert cls.family in ("classifiers", "safety")


# -- relevance ----------------------------------------------------------------------------------

TOPICS = ["film", "plot", "cast"]


@pytest.fixture(scope="module")
def nli(bert):
    return bert("contradiction", "entailment", "neutral")


@pytest.mark.parametrize("compete", [True, False])
def test_topic_consistency_by_zero_shot_is_that_of_transformers(nli, compete):
    from transformers import pipeline

    line = "the {} is so good"
    direct = pipeline("zero-shot-classification", model=nli, device="cpu")
    spec = {
        "type": "topic_consistency",
        "method": "zero_shot",
        "model": nli,
        "topics": TOPICS,
        "hypothesis": line,
        "batch_size": 2,
    }
    expected = []
    for text in filter(None, TEXTS):
        found = direct(text, TOPICS, hypothesis_template=line, multi_label=not compete)
        scores = dict(zip(found["labels"], found["scores"], strict=True))
        expected.append(scores["plot"] + scores["cast"] if compete else max(scores.values()))
    target = {"target": ["cast", "plot"]} if compete else {}
    found = make_reward({**spec, **target})(TEXTS)
    assert found[2] == 0.0
    assert [found[i] for i in (0, 1, 3, 4)] == pytest.approx(expected, abs=1e-5)
    odd = make_reward({**spec, **target, "topics": [*TOPICS, "\ud800"]})(ODD)
    assert odd[:2] == [0.0, 0.0] and all(0 <= x <= 1 for x in odd)


def test_zero_shot_takes_a_two_way_classifier_and_no_other(bert, real):
    folder = bert("entailment", "not_entailment")
    spec = {"type": "topic_consistency", "method": "zero_shot", "model": folder, "topics": ["film"]}
    p = direct(folder, "good", "This text is about film.").softmax(-1)[0].item()
    assert make_reward(spec)("good") == pytest.approx(p, abs=1e-6)
    said = error_of({**spec, "model": real("bias")})
    assert "is no NLI classifier: its labels are BIASED, NEUTRAL, not entailment and" in said


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("encoder"), kind="BertModel")


def test_topic_consistency_by_embedding(encoder):
    from sentence_transformers import SentenceTransformer

    rows = SentenceTransformer(encoder, device="cpu").encode

    def mapped(a, b):
        x, y = (torch.tensor(rows([text])[0]) for text in (a, b))
        return (torch.cosine_similarity(x, y, dim=0).item() + 1) / 2

    spec = {"type": "topic_consistency", "model": encoder}
    found = make_reward(spec)(TEXTS, prompt=["the plot", "the cast", "x", " ", "the plot"])
    a, b = mapped(TEXTS[0], "the plot"), mapped(TEXTS[1], "the cast")
    assert found == pytest.approx([a, b, 0.0, 0.5, a], abs=1e-5)
    nearest = make_reward({**spec, "topics": TOPICS})("a good film", prompt="x")
    assert nearest == pytest.approx(max(mapped("a good film", t) for t in TOPICS), abs=1e-5)
    assert make_reward(spec)("good", prompt="good") == pytest.approx(1)
    odd = make_reward(spec)(ODD, prompt=ODD[::-1])
    assert all(0 <= x <= 1 for x in odd)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"target": "film"}, "target: is for zero_shot, got 'film'"),
        ({"max_tokens": 9}, "max_tokens: is for zero_shot, got 9"),
        ({"method": "zero_shot"}, "topics: is required for zero_shot: a list of themes"),
        (
            {"method": "zero_shot", "topics": TOPICS, "hypothesis": "yes"},
            "hypothesis: needs {} where the topic goes, got 'yes'",
        ),
        (
            {"method": "zero_shot", "topics": ["a", "b"], "target": ["a", "c"]},
            "target: names some of the topics, not others and not all, got 'a', 'c' of 'a', 'b'",
        ),
        (
            {"method": "zero_shot", "topics": ["a"], "target": "a"},
            "target: names some of the topics, not others and not all, got 'a' of 'a'",
        ),
    ],
)
def test_topic_consistencys_options_must_fit(options, says):
    with pytest.raises(ConfigError) as caught:
        make_reward({"type": "topic_consistency", **options})
    assert caught.value.problems == [f"reward.{says}"]


def test_qa_relevance_is_the_rankers_sigmoid_or_a_label(bert):
    ranker, labelled = bert("LABEL_0"), bert("irrelevant", "relevant")
    reward = make_reward({"type": "qa_relevance", "model": ranker, "batch_size": 2})
    expected = [direct(ranker, "is the film good", text).sigmoid().item() for text in TEXTS]
    assert reward(TEXTS, prompt="is the film good") == pytest.approx(expected, abs=1e-6)
    spec = {"type": "qa_relevance", "model": labelled, "target": "Relevant"}
    p = direct(labelled, "is the film good", "very").softmax(-1)[1].item()
    assert make_reward(spec)("very", prompt="is the film good") == pytest.approx(p, abs=1e-6)
    said = error_of({**spec, "target": None})
    assert said.endswith("has several outputs: set target to one of irrelevant, relevant")
    assert "has one output and no labels: leave target" in error_of({**spec, "model": ranker})


def test_bleurt_is_the_models_output_of_target_and_response(bert):
    folder = bert("LABEL_0")
    reward = make_reward({"type": "bleurt", "model": folder})
    targets = ["a good film", "the plot is dull", "", "great", "the cast"]
    expected = [direct(folder, *pair).item() for pair in zip(targets, TEXTS, strict=True)]
    assert reward(TEXTS, targets) == pytest.approx(expected, abs=1e-5)
    assert reward.bounds() == (-math.inf, math.inf)
    assert all(map(math.isfinite, reward(ODD, "a good film \ud800")))
    said = error_of({"type": "bleurt", "model": bert("irrelevant", "relevant")})
    assert "has 2 outputs, a metric has one: set model to a BLEURT checkpoint" in said


def test_the_batchs_order_changes_nothing(real):
    reward = make_reward({"type": "emotion", "model": real("emotion"), "target": "love"})
    scores = reward(TEXTS)
    classifier(real("emotion"), "auto")._last = (None, None)
    assert reward(TEXTS[::-1]) == scores[::-1]
    with pytest.raises(ModelError, match="no label 'hunger': set target to one of admiration"):
        make_reward({"type": "emotion", "model": real("emotion"), "target": "hunger"})("x")
