"""Scores kept on the disk: no bit changes, processes share them, a damaged file costs time only."""

import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mht.core.errors import ConfigError, ModelError
from mht.data.text.sample import Sample
from mht.rewards import RewardError, cache, make_reward
from mht.rewards.base import TextReward
from mht.rewards.models.sequence_classifier import Classifier
from tests.support.classifiers import WORDS, save_bert

TEXTS = ["a good film", "the movie is dull", "", "great", "a good film", "漢字 \x00"]
FILE = Path(".mht/rewards/scores.sqlite")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A tiny classifier, in a project of its own."""
    monkeypatch.chdir(tmp_path)
    return save_bert(tmp_path / "model", ["negative", "positive"])


@pytest.fixture
def passes(monkeypatch):
    """The batches that reached the model."""
    seen = []
    logits = Classifier.logits

    def counted(self, texts, *options):
        seen.append(list(texts))
        return logits(self, texts, *options)

    monkeypatch.setattr(Classifier, "logits", counted)
    return seen


def spec(folder, **options):
    return {"type": "sentiment", "model": folder, "cache": True, **options}


def batch(texts=TEXTS):
    return [Sample("the ", text) for text in texts]


def test_a_batch_is_scored_once_and_comes_back_bit_by_bit(folder, passes):
    plain = make_reward(spec(folder, cache=False)).evaluate(batch())
    first = make_reward(spec(folder)).evaluate(batch())
    assert len(passes) == 2
    again = make_reward(spec(folder)).evaluate(batch())
    assert len(passes) == 2
    assert plain == first == again  # floats compared by ==, so by their bits
    assert not any(str(path).endswith("-journal") for path in FILE.parent.iterdir())


def test_whatever_was_scored_before_no_bit_changes(folder):
    """The same batches with a full, an empty and no cache: random ones, overlapping in texts."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(0, 20))) for _ in range(30)]
    batches = [rng.sample(texts, rng.randint(1, 12)) for _ in range(8)]
    plain = make_reward(spec(folder, cache=False))
    expected = [plain.evaluate(batch(part)).score for part in batches]
    for order in (range(8), reversed(range(8)), [*range(8)] * 2):
        kept = make_reward(spec(folder))
        for i in order:
            assert kept.evaluate(batch(batches[i])).score == expected[i]


def test_any_text_has_a_key_and_no_two_batches_share_one(folder):
    reward = make_reward(spec(folder))
    parts = [["\ud800"], ["?"], ["\x00"], ["a", "b"], ["b", "a"], ["ab"], ["a"], ["a", ""]]
    assert len({cache.key_of(reward, batch(part)) for part in parts}) == len(parts)


def test_what_does_not_reach_the_score_finds_it_again(folder, passes):
    make_reward(spec(folder)).evaluate(batch())
    outside = {"weight": 2.0, "invert": True, "on_error": 0.0, "postprocess": [{"type": "whiten"}]}
    make_reward(spec(folder, **outside)).evaluate(batch())
    parts = {"type": "weighted_sum", "components": {"x": spec(folder, weight=3.0)}}
    make_reward(parts).evaluate(batch())
    make_reward(spec(folder)).evaluate([Sample("another ", text) for text in TEXTS])
    assert len(passes) == 1


@pytest.mark.parametrize(
    "change", [{"target": "negative"}, {"scale": False}, {"max_tokens": 3}, {"text": "full"}]
)
def test_another_option_is_scored_anew(folder, passes, change):
    make_reward(spec(folder)).evaluate(batch())
    changed = make_reward(spec(folder, **change)).evaluate(batch())
    assert len(passes) == 2
    assert changed == make_reward(spec(folder, **change, cache=False)).evaluate(batch())


def test_the_model_is_told_by_its_content(folder, passes, tmp_path):
    make_reward(spec(folder)).evaluate(batch())
    os.rename(folder, tmp_path / "moved")
    make_reward(spec(str(tmp_path / "moved"))).evaluate(batch())
    assert len(passes) == 1  # the same model elsewhere
    save_bert(tmp_path / "moved", ["negative", "positive"], hidden_act="relu")
    found = make_reward(spec(str(tmp_path / "moved"))).evaluate(batch())
    assert len(passes) == 2  # another model in its place
    assert found == make_reward(spec(str(tmp_path / "moved"), cache=False)).evaluate(batch())


def test_a_file_that_an_option_names_is_told_by_its_content(folder, tmp_path, passes):
    class WithFile(type(make_reward(spec(folder)))):
        corpus: str = ""

    def key(name):
        return cache.key_of(WithFile(model=folder, corpus=name), batch())

    first = tmp_path / "first.txt"
    first.write_text("one")
    before = key(str(first))
    assert key(str(first)) == before != key("no such file")
    first.write_text("another")
    assert key(str(first)) != before


def test_a_missing_model_is_said_as_ever(folder):
    with pytest.raises(ModelError, match=r"^reward \(sentiment\): no such folder './none'"):
        make_reward(spec("./none")).evaluate(batch())


@pytest.mark.parametrize(
    "without",
    [
        {"type": "bleu"},
        {"type": "min", "components": [{"type": "bleu"}]},
        {"type": "length_window", "min": 1, "max": 2},
    ],
)
def test_only_a_model_s_scores_are_worth_keeping(without):
    with pytest.raises(ConfigError, match="reward.cache: is only for types whose scores a model"):
        make_reward({**without, "cache": True})


def test_a_type_whose_batch_has_a_say_is_refused():
    class Mixed(TextReward):
        def models(self):
            return ("m",)

        def reads(self, sample):
            return None

        def score(self, samples):
            return [0.0] * len(samples)

    with pytest.raises(ConfigError, match=r"x.cache: is only"):
        from mht.core.component import build

        build(Mixed, {"cache": True}, path="x")


def test_it_lies_in_the_project_that_an_experiment_came_from(folder, monkeypatch, tmp_path):
    root, copy = tmp_path / "root", tmp_path / "copy"
    root.mkdir(), copy.mkdir()
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(root))
    make_reward(spec(folder)).evaluate(batch())
    assert (root / FILE).is_file() and not list(copy.iterdir())


DAMAGE = {
    "no database": lambda data: b"not a database at all" * 100,
    "cut": lambda data: data[: len(data) // 2],
    "header alone": lambda data: data[:100],
    "noise in its pages": lambda data: data[:100] + bytes(255 - b for b in data[100:]),
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.filterwarnings("ignore:the cache")
def test_a_damaged_file_never_stops_nor_changes_a_score(folder, passes, damage):
    expected = make_reward(spec(folder)).evaluate(batch())
    FILE.write_bytes(damage(FILE.read_bytes()))
    for calls in (2, 2):  # once to score again, then from the new file
        assert make_reward(spec(folder)).evaluate(batch()) == expected
        assert len(passes) == calls


def test_a_damaged_file_is_set_aside_with_a_warning(folder):
    make_reward(spec(folder)).evaluate(batch())
    FILE.write_bytes(b"not a database at all" * 100)
    with pytest.warns(UserWarning, match=r"was damaged \(.*\): set aside as scores.damaged-"):
        make_reward(spec(folder)).evaluate(batch())
    assert len(list(FILE.parent.glob("scores.damaged-*.sqlite"))) == 1


def test_a_flipped_bit_in_the_numbers_is_noticed(folder, passes):
    expected = make_reward(spec(folder)).evaluate(batch())
    with sqlite3.connect(FILE) as db:
        ((key, numbers),) = db.execute("SELECT key, numbers FROM scores").fetchall()
        flipped = numbers[:-1] + bytes([numbers[-1] ^ 1])
        db.execute("UPDATE scores SET numbers = ? WHERE key = ?", (flipped, key))
    db.close()
    assert make_reward(spec(folder)).evaluate(batch()) == expected and len(passes) == 2


def test_a_file_that_is_locked_or_can_t_be_made_costs_a_warning(folder, monkeypatch):
    monkeypatch.setattr(cache, "WAIT_S", 0.01)
    expected = make_reward(spec(folder, cache=False)).evaluate(batch())
    FILE.parent.mkdir(parents=True)
    holder = sqlite3.connect(FILE, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.warns(UserWarning, match="is not used: database is locked"):
        assert make_reward(spec(folder)).evaluate(batch()) == expected
    holder.close()
    FILE.unlink()
    FILE.parent.rmdir()
    FILE.parent.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="is not used: "):
        assert make_reward(spec(folder)).evaluate(batch()) == expected


def test_several_processes_share_it(tmp_path, monkeypatch):
    """Three that write and read at once: every number is what it was scored as."""
    monkeypatch.chdir(tmp_path)
    code = """
import sys
from mht.rewards import cache
mine = int(sys.argv[1])
for round in range(12):
    for who in range(3):
        key = bytes([who, round]) * 16
        found = cache._with_file(lambda db: cache._look_up(db, key, 2))
        assert found in (None, [who / 3, round / 7]), found
    key = bytes([mine, round]) * 16
    cache._with_file(lambda db: cache._store(db, key, [mine / 3, round / 7]))
"""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONWARNINGS": "error"}
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(i)], env=env, cwd=tmp_path)
        for i in range(3)
    ]
    assert [process.wait() for process in running] == [0] * 3
    with sqlite3.connect(FILE) as db:
        assert db.execute("SELECT count(*) FROM scores").fetchone() == (36,)
    db.close()


def test_what_a_broken_type_gives_is_refused_and_not_kept(folder, monkeypatch):
    kind = type(make_reward(spec(folder)))
    monkeypatch.setattr(kind, "score", lambda self, samples: [float("nan")])
    for _ in range(2):
        with pytest.raises(RewardError, match="gave nan"):
            make_reward(spec(folder)).evaluate(batch(["a"]))
