"""ter, chrf and meteor, and what the other types of match do with long and odd texts."""

import time

import pytest
import sacrebleu
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF, TER

from mht.core.errors import ConfigError, ModelError
from mht.rewards import make_reward

PAIRS = [
    ("the cat sat on the mat", "the cat is on the mat"),
    ("The Cat", "the cat"),
    ("running dogs", "run dog"),
    ("on the mat sat the cat, today", "the cat sat on the mat today"),
    ("a perfectly equal sentence here", "a perfectly equal sentence here"),
    ("nothing", "in common"),
    ("", "something"),
    ("something", ""),
    ("", ""),
]
RESPONSES, TARGETS = [list(side) for side in zip(*PAIRS, strict=True)]


def score(spec):
    return make_reward(spec)(RESPONSES, TARGETS)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"word_order": 2}, {"word_order": 2}),
        ({"char_order": 3, "beta": 1}, {"char_order": 3, "beta": 1}),
        ({"lowercase": True}, {"lowercase": True}),
    ],
)
def test_chrf_is_sacrebleus(ours, theirs):
    direct = [CHRF(**theirs).sentence_score(a, [b]).score / 100 for a, b in PAIRS]
    found = score({"type": "chrf", **ours})
    assert found == pytest.approx(direct)
    assert max(found) == 1.0 and found[5] < found[0] < 1


def test_chrf_by_hand():
    # "ab" and "ac", characters: 1 of 2 alike; pairs: none of 1; P = R = (1/2 + 0) / 2
    assert make_reward({"type": "chrf", "char_order": 2})("ab", "ac") == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"lowercase": False}, {"case_sensitive": True}),
        ({"normalized": True}, {"normalized": True}),
        ({"no_punct": True}, {"no_punct": True}),
        (
            {"normalized": True, "no_punct": True, "asian_support": True},
            {"normalized": True, "no_punct": True, "asian_support": True},
        ),
    ],
)
def test_ter_is_sacrebleus(ours, theirs):
    direct = [TER(**theirs).sentence_score(a, [b]).score / 100 for a, b in PAIRS]
    assert score({"type": "ter", **ours}) == pytest.approx(direct)


def test_ter_by_hand():
    reward = make_reward({"type": "ter"})
    assert reward("the cat sat", "the cat sat") == 0
    assert reward("the cat", "the dog ran") == pytest.approx(2 / 3)  # one word else, one missing
    assert reward("c a b", "a b c") == pytest.approx(1 / 3)  # one shift
    assert reward("a b c d e f", "x") == 6  # no upper end
    assert reward(["a", "", "a"], ["", "", "a"]) == [1, 0, 0]
    assert reward.bounds() == (0, float("inf")) and reward.direction() == "low"
    assert make_reward({"type": "ter", "scale": True, "invert": True})("c a b", "a b c") == 0.75


def test_beyond_its_limit_ter_is_the_word_error_rate():
    reward = make_reward({"type": "ter", "max_words": 3})
    assert reward("c a b", "a b c") == pytest.approx(1 / 3)
    assert reward("d a b c", "a b c d") == pytest.approx(2 / 4)  # no shift: out here, in there
    assert reward("a b c d e", "a b c") == pytest.approx(2 / 3)
    assert reward("a b c d e", "a b c d e") == 0


def test_meteor_by_hand():
    reward = make_reward({"type": "meteor"})
    # all 6 words match in one chunk: 1 - 0.5 / 6^3
    assert reward("the cat sat on the mat", "the cat sat on the mat") == pytest.approx(
        1 - 0.5 / 216
    )
    # P = 2/3, R = 1: F = P R / (.9 P + .1 R) = .6667 / .7; one chunk of two
    assert reward("a cat sat", "cat sat") == pytest.approx((2 / 3) / 0.7 * (1 - 0.5 / 8))
    assert reward("Running", "runs") == pytest.approx(0.5)  # the same stem
    assert reward(["", "a", ""], ["a", "", ""]) == [0, 0, 0]
    plain = make_reward({"type": "meteor", "gamma": 0.0, "alpha": 0.0})
    assert plain("a cat sat", "cat sat") == pytest.approx(2 / 3)  # precision alone
    assert make_reward({"type": "meteor", "gamma": 0.0, "alpha": 1.0})("a cat", "cat") == 1


def test_meteor_is_nltks():
    class Nothing:
        def synsets(self, word):
            return []

    words = [(a.replace(",", " ,").split(), b.split()) for a, b in PAIRS]
    direct = [
        single_meteor_score(b, a, wordnet=Nothing(), alpha=0.8, beta=2.0, gamma=0.3)
        for a, b in words
    ]
    assert score({"type": "meteor", "alpha": 0.8, "beta": 2.0, "gamma": 0.3}) == direct


def test_synonyms_need_wordnet_and_then_match(monkeypatch):
    import nltk

    reward = make_reward({"type": "meteor", "synonyms": True})
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(ModelError) as caught:
        reward("a film", "a movie")
    assert "python -m nltk.downloader wordnet" in str(caught.value)
    assert "\n" not in str(caught.value)

    class Lemma:
        def name(self):
            return "movie"

    class Synset:
        def lemmas(self):
            return [Lemma()]

    class WordNet:
        def ensure_loaded(self):
            pass

        def synsets(self, word):
            return [Synset()] if word in ("film", "films") else []

    monkeypatch.setattr("nltk.corpus.wordnet", WordNet())
    # nltk stems both to movi before it looks for synonyms, so that its own look-up finds none
    assert reward("a film", "a movie") == reward("a movie", "a movie")
    assert reward("Films", "movies") == 0.5
    assert reward("a dog", "a movie") == make_reward({"type": "meteor"})("a dog", "a movie")
    assert make_reward({"type": "meteor"})("a film", "a movie") < reward("a film", "a movie")


@pytest.mark.parametrize("stem", [True, False])
def test_rouge_l_is_rouge_scores_for_longer_texts_too(stem):
    scorer = RougeScorer(["rougeL"], use_stemmer=stem)
    texts = [" ".join(f"word{(i * k) % 7}s" for i in range(40)) for k in range(1, 6)]
    pairs = [(a, b) for a in texts for b in texts]
    direct = [scorer.score(b, a)["rougeL"].fmeasure for a, b in pairs]
    found = make_reward({"type": "rouge_l", "use_stemmer": stem})(*zip(*pairs, strict=True))
    assert found == direct


@pytest.mark.parametrize("kind", ["rouge_l", "bleu", "chrf", "meteor", "ter", "levenshtein"])
def test_long_texts_on_both_sides_are_quick(kind):
    text = " ".join(str(i % 977) for i in range(8000))
    start = time.perf_counter()
    value = make_reward({"type": kind})(text, text)
    assert value == pytest.approx(0.0 if kind == "ter" else 1.0, abs=1e-6)
    assert time.perf_counter() - start < 5  # what is quadratic in Python takes minutes


def test_bleu_options_are_sacrebleus():
    options = {"smooth_method": "add-k", "smooth_value": 0.5, "lowercase": True, "tokenize": "intl"}
    direct = [sacrebleu.sentence_bleu(a, [b], **options).score / 100 for a, b in PAIRS]
    assert score({"type": "bleu", **options}) == pytest.approx(direct)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"type": "chrf", "char_order": 0}, "reward.char_order: should be greater than 0"),
        ({"type": "meteor", "alpha": 1.5}, "reward.alpha: should be less than or equal to 1"),
        ({"type": "ter", "case_sensitive": True}, "no such option 'case_sensitive'"),
        ({"type": "chrf", "beta": 1.5}, "reward.beta: should be a valid integer"),
    ],
)
def test_wrong_options_are_named(spec, says):
    with pytest.raises(ConfigError, match=says):
        make_reward(spec)
