"""novelty against a corpus and exploration by counts: by hand, and by brute force."""

import hashlib
import json
import math
import random

import pytest

from mht.core.errors import ConfigError, ModelError, RewardError
from mht.data.text.sample import Sample
from mht.rewards import make_reward
from mht.rewards.text.exploration import simhash
from mht.rewards.text.novelty import Index

CORPUS = ["the cat sat on the mat", "a dog ran", "on the mat lay a dog"]


@pytest.fixture
def corpus(tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps({"target": text}) + "\n" for text in CORPUS))
    return str(file)


def test_new_ngrams_by_hand(corpus):
    reward = make_reward({"type": "novelty", "corpus": corpus, "ngram": 2})
    # the-cat, cat-ran, ran-on, on-the: two are new
    assert reward("the CAT ran on the") == 2 / 4
    assert reward(["on the mat", "blue green red", "the cat the cat the cat"]) == [0, 1, 1 / 2]
    assert reward(["mat a dog"]) == [1 / 2]  # mat-a is no n-gram of the corpus, across its texts
    assert reward(["dog", "cow", ""]) == [0, 1, 0]  # shorter than an n-gram: taken as a whole
    assert reward("x y x y x") == 1  # words that it has not


def test_the_longest_copy_by_hand(corpus):
    spec = {"type": "novelty", "corpus": corpus, "method": "longest_copy", "ngram": 2}
    reward = make_reward(spec)
    # "on the mat lay" is the longest
    assert reward("we sat on the mat lay down") == pytest.approx(1 - 4 / 7)
    assert reward(["the cat sat on the mat", "sat the on"]) == [0, 1]
    assert reward(["a cow", "a", "cow", ""]) == [1, 0, 1, 0]
    assert make_reward({**spec, "ngram": 5})("we sat on the mat lay down") == 1
    assert make_reward({**spec, "ngram": 4})("we sat on the mat lay down") == pytest.approx(3 / 7)


@pytest.mark.parametrize("seed", range(20))
def test_both_methods_are_what_a_plain_search_finds(seed):
    rng = random.Random(seed)
    texts = [[rng.choice("abcd") for _ in range(rng.randint(0, 30))] for _ in range(5)]
    words = [rng.choice("abcde") for _ in range(rng.randint(1, 25))]
    index = Index(" ".join(text) for text in texts)

    def within(part):
        return any(text[i : i + len(part)] == part for text in texts for i in range(len(text)))

    for n in (1, 2, 3, 5):
        m = min(n, len(words))
        grams = {tuple(words[i : i + m]) for i in range(len(words) - m + 1)}
        new = sum(not within(list(gram)) for gram in grams) / len(grams)
        assert index.new_share(words, n) == pytest.approx(new)
        stretches = [
            b - a
            for a in range(len(words))
            for b in range(a + m, len(words) + 1)
            if within(words[a:b])
        ]
        assert index.longest_copy(words, n) == max(stretches, default=0)


def test_a_corpus_of_several_files_and_kinds(tmp_path, corpus):
    import pyarrow
    from pyarrow import parquet

    folder = tmp_path / "more"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt").write_text("red green\n\nblue")
    parquet.write_table(pyarrow.table({"target": ["one two", "three"]}), folder / "b.parquet")
    spec = {"type": "novelty", "ngram": 2}
    texts = ["red green", "green blue", "one two", "two three", "a dog"]
    assert make_reward({**spec, "corpus": str(folder)})(texts) == [0, 0, 0, 1, 1]
    assert make_reward({**spec, "corpus": [str(folder), corpus]})(texts) == [0, 0, 0, 1, 0]
    lines = make_reward({**spec, "corpus": str(folder), "unit": "line"})
    assert lines("green blue") == 1


def test_a_file_that_changes_is_read_again(corpus):
    reward = make_reward({"type": "novelty", "corpus": corpus, "ngram": 2})
    assert reward("green blue") == 1
    with open(corpus, "a") as file:
        file.write(json.dumps({"target": "green blue"}) + "\n")
    assert reward("green blue") == 0


def test_a_corpus_that_is_not_there_or_has_no_such_column(tmp_path, corpus):
    make_reward({"type": "novelty", "corpus": "data/prepared/not-yet.parquet"})  # a later stage's
    with pytest.raises(ModelError, match="corpus: no such file or folder 'nowhere.txt'"):
        make_reward({"type": "novelty", "corpus": "nowhere.txt", "on_error": 0.0})("a")
    with pytest.raises(ModelError, match="train.jsonl:1: no column 'text'.*There are: target"):
        make_reward({"type": "novelty", "corpus": corpus, "column": "text"})("a")
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(ModelError, match="corpus: no word in .*empty.txt"):
        make_reward({"type": "novelty", "corpus": str(tmp_path / "empty.txt")})("a")
    with pytest.raises(ConfigError, match="reward.corpus"):
        make_reward({"type": "novelty", "corpus": []})


def batch(*texts):
    return [Sample("", text) for text in texts]


def test_the_bonus_of_ngrams_by_hand():
    reward = make_reward({"type": "exploration"})
    assert reward.evaluate(batch("a b c", "a b", "")).score == [1, 1, 1]
    # a-b was seen twice, b-c once, c-d never
    once, twice = 1 / math.sqrt(2), 1 / math.sqrt(3)
    found = reward.evaluate(batch("A b c d", "a b a b", ""), update=False).score
    # a-b and b-a in the second: n-grams count once a text
    assert found == pytest.approx([(twice + once + 1) / 3, (twice + 1) / 2, once])
    assert reward.evaluate(batch("a b c d", "a b a b", ""), update=False).score == found


def test_the_bonus_of_a_simhash_by_hand():
    reward = make_reward({"type": "exploration", "method": "simhash", "bits": 24})
    texts = ["the cat sat on the mat", "a dog ran home", ""]
    for visits in range(1, 5):
        assert reward.evaluate(batch(*texts)).score == [1 / math.sqrt(visits)] * 3
    assert reward.evaluate(batch("quite something else"), update=False).score == [1]


def test_simhash_is_alike_for_texts_that_are():
    rng = random.Random(0)
    hashes = [rng.getrandbits(64) for _ in range(40)]
    near, far = [*hashes[:38], 1, 2], [rng.getrandbits(64) for _ in range(40)]

    def apart(a, b):
        return (simhash(a, 64) ^ simhash(b, 64)).bit_count()

    assert apart(hashes, near) < 16 < apart(hashes, far)
    assert simhash([], 8) == 0 and simhash([2**64 - 1], 8) == 255
    assert simhash(hashes, 8) == simhash(hashes, 64) >> 56


@pytest.mark.parametrize("method", ["ngrams", "simhash"])
def test_the_state_survives_json_and_does_not_hang_on_the_order(method):
    spec = {"type": "exploration", "method": method}
    texts = ["a b c", "a b", "c d e f", "", "a b c"]
    first, other, resumed = (make_reward(spec) for _ in range(3))
    empty = first.state_dict()
    assert list(empty) == ["."]  # there from the start
    first.evaluate(batch(*texts))
    other.evaluate(batch(*texts[::-1]))
    assert first.state_dict() == other.state_dict() != empty
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert resumed.state_dict() == first.state_dict()
    assert resumed.evaluate(batch(*texts)) == first.evaluate(batch(*texts))


def test_the_states_are_the_same_in_every_process():
    reward = make_reward({"type": "exploration"})
    reward.evaluate(batch("A b \ud800"))
    grams = [b"a\nb", b"b\n\xed\xa0\x80"]
    wanted = [hashlib.blake2b(gram, digest_size=8).digest()[:3] for gram in grams]
    states = sorted(int.from_bytes(digest, "big") >> (24 - 18) for digest in wanted)
    assert reward.get_state() == {"visits": {str(state): 1 for state in states}}


def test_the_table_has_an_upper_size():
    reward = make_reward({"type": "exploration", "bits": 4, "ngram": 1})
    reward.evaluate(batch(" ".join(map(str, range(500)))))
    assert len(reward.get_state()["visits"]) == 16
    with pytest.raises(ConfigError, match="reward.bits: should be less than or equal to 24"):
        make_reward({"type": "exploration", "bits": 25})


@pytest.mark.parametrize("state", [{}, {"visits": 3}, {"visits": {"x": 1}}, {"visits": {"1": 0}}])
def test_a_damaged_state_is_refused(state):
    with pytest.raises(RewardError, match="the saved state of exploration has no visits"):
        make_reward({"type": "exploration"}).load_state_dict({".": state})
