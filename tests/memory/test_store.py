"""The responses kept: what goes when there is no room, what comes out, and the file."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mht.core.errors import UserError
from mht.memory.difficulty import EASY, HARD, MEDIUM
from mht.memory.store import Store
from mht.memory.table import load, save
from tests.support.memory import IDENTITY, attempt, memory_of, practised_memory, shared


def kept(store):
    return [(int(store.columns["row"][i]), store.texts[i]) for i in store.used]


def filled(capacity, rows, classes, practised):
    """A store with a response to each of ``rows`` in turn, numbered from 0."""
    store = Store(capacity, np.arange(6))
    for number, row in enumerate(rows):
        store.add([attempt(row, 0.0, response=str(number))], classes, practised)
    return store


# -- eviction ---------------------------------------------------------------------------------

CLASSES = np.array([EASY, EASY, MEDIUM, HARD, HARD, MEDIUM], np.int8)


def test_easy_rows_go_first_of_these_the_most_practised_of_these_the_oldest():
    practised = np.array([1, 5, 9, 9, 9, 9])
    store = filled(6, [3, 2, 1, 0, 1, 3], CLASSES, practised)
    gone = []
    for number in range(6, 11):
        before = kept(store)
        store.add([attempt(4, 0.0, response=str(number))], CLASSES, practised)
        gone += [text for _, text in before if text not in dict(map(reversed, kept(store)))]
    assert gone == ["2", "4", "3", "1", "0"], "row 1 twice, then 0, then medium, then hard"
    assert "5" in [text for _, text in kept(store)], "the last one of the failing row 3 stays"


def test_the_last_of_a_failing_row_goes_only_when_all_are_such():
    store = filled(2, [3, 4], CLASSES, np.ones(6, int))
    store.add([attempt(3, 0.0, response="new")], CLASSES, np.ones(6, int))
    assert kept(store) == [(4, "1"), (3, "new")]


@given(
    st.integers(1, 6),
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=8), min_size=1, max_size=12),
)
def test_it_stays_bounded_and_keeps_the_newest_step(capacity, steps):
    store, number = Store(capacity, np.arange(6)), 0
    for rows in steps:
        attempts = [attempt(row, 0.0, response=str(number + i)) for i, row in enumerate(rows)]
        store.add(attempts, CLASSES, np.ones(6, int))
        number += len(rows)
        texts = [text for _, text in kept(store)]
        assert len(texts) == len(store) == min(number, capacity)
        assert texts == sorted(texts, key=int)
        assert {a.response for a in attempts[-capacity:]} <= set(texts)


def test_a_failing_row_keeps_its_newest_while_others_come_and_go():
    store = Store(4, np.arange(6))
    classes = np.array([EASY, MEDIUM, EASY, HARD, MEDIUM, EASY], np.int8)
    store.add([attempt(3, 0.0, response="mine")], classes, np.ones(6, int))
    for number in range(20):
        rows = [number % 3, 4]
        store.add([attempt(r, 0.0, response=str(number)) for r in rows], classes, np.ones(6, int))
        assert (3, "mine") in kept(store)


def test_a_slot_used_again_has_nothing_of_before():
    store = Store(1, np.arange(6))
    long = {"response_ids": [1, 2, 3], "logprobs": [-1.0, -2.0, -3.0]}
    store.add([attempt(0, 0.0, **long)], CLASSES, np.ones(6, int))
    store.add([attempt(0, 0.0)], CLASSES, np.ones(6, int))
    assert store.ids.tolist() == [[7, 2, 0]]
    assert store.logprobs.tolist() == [[-0.5, -0.25, 0.0]]


# -- what comes out ---------------------------------------------------------------------------


def test_attempts_come_back_as_they_went_in():
    memory = memory_of(capacity=4)
    own = [attempt(i, i / 3, loss=i / 7, step=i) for i in range(4)]
    memory.remember(own)
    assert memory.attempts(memory.store.used) == own


def test_best_is_one_per_prompt_above_the_quantile():
    memory = memory_of()
    memory.remember([attempt(0, 0.1), attempt(0, 0.9), attempt(1, 0.8), attempt(2, 0.2)])
    generator = np.random.default_rng(0)
    assert {(a.row, a.score) for a in memory.best(9, generator, 0.5)} == {(0, 0.9), (1, 0.8)}
    assert len(memory.best(1, generator, 0.0)) == 1
    assert memory_of().best(3, generator, 0.5) == []


def test_recent_looks_at_the_step():
    memory = memory_of()
    for step in range(4):
        memory.remember([attempt(step, 0.5, step=step)])
    found = memory.recent(9, np.random.default_rng(0), since_step=2)
    assert {a.step for a in found} == {2, 3}


def same_records(one, other):
    for name, record in one.records.items():
        np.testing.assert_array_equal(record, other.records[name])
        assert record.dtype == other.records[name].dtype


def same(one, other):
    assert one.attempts(one.store.used) == other.attempts(other.store.used)
    same_records(one, other)
    assert one.statistics() == other.statistics()
    draws = [m.choose(3, np.random.default_rng(5)) for m in (one, other)]
    assert draws[0] == draws[1]


def test_the_state_goes_through_a_checkpoint_and_on_alike():
    memory, other = practised_memory(), memory_of(capacity=5)
    other.load_state_dict(memory.state_dict())
    same(memory, other)
    for each in (memory, other):
        each.remember([attempt(2, 0.3, step=9), attempt(0, 1.0, step=9)])
    same(memory, other)


# -- the file ---------------------------------------------------------------------------------


def test_a_file_is_a_table_that_pandas_opens(tmp_path):
    import pandas as pd

    memory = practised_memory()
    save(memory, tmp_path / "memory.parquet", IDENTITY)
    table = pd.read_parquet(tmp_path / "memory.parquet")
    assert len(table.dropna(subset=["response"])) == 5
    assert set(table["row"]) == set(memory.known)
    line = table.dropna(subset=["response"]).iloc[-1]
    assert (line["prompt"], line["response"], line["target"]) == ("p4", "r4", "t")
    assert line["response_ids"].tolist() == [7, 2]
    assert line["logprobs"].tolist() == [-0.5, -0.25]
    assert line["difficulty"] in ("easy", "medium", "hard")
    assert {"score", "loss", "step", "practised", "box", "due", "mean_score"} <= set(table.columns)


def test_identical_memories_are_identical_bytes(tmp_path):
    for name in ("a", "b"):
        save(practised_memory(), tmp_path / name, IDENTITY)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_run_begins_with_what_another_remembered(tmp_path):
    memory, new = practised_memory(), memory_of(capacity=5)
    save(memory, tmp_path / "m", IDENTITY)
    load(new, tmp_path / "m", IDENTITY)
    for name, record in memory.records.items():
        np.testing.assert_array_equal(record, new.records[name])
    assert new.clock == memory.clock
    old, found = (m.attempts(m.store.used) for m in (memory, new))
    assert [(a.row, a.score, a.logprobs) for a in found] == [
        (a.row, a.score, a.logprobs) for a in old
    ]
    assert {a.step for a in found} == {-1}
    assert new.recent(9, np.random.default_rng(0), since_step=-5) == [], "of another run"
    assert memory.choose(3, np.random.default_rng(1)) == new.choose(3, np.random.default_rng(1))


def test_a_smaller_memory_takes_the_newest(tmp_path):
    memory, new = practised_memory(), memory_of(capacity=2)
    save(memory, tmp_path / "m", IDENTITY)
    load(new, tmp_path / "m", IDENTITY)
    assert [a.row for a in new.attempts(new.store.used)] == [
        a.row for a in memory.attempts(memory.store.used)[-2:]
    ]


def other(**changes):
    return {**IDENTITY, **changes}


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        (other(tokenizer="x"), "it is of another tokenizer"),
        (other(temperature=1.0), "temperature was 0.7 and is 1.0"),
        (other(reward={"type": "length_window", "max": 4}), "reward.max was 3 and is 4"),
        (other(reward=None), 'reward.type was "length_window" and is null'),
    ],
)
def test_a_file_of_something_else_is_refused_with_the_difference(tmp_path, identity, said):
    save(practised_memory(), tmp_path / "m", IDENTITY)
    with pytest.raises(UserError) as caught:
        load(memory_of(), tmp_path / "m", identity)
    assert str(tmp_path / "m") in str(caught.value)
    assert said in str(caught.value)


def test_a_file_of_other_data_is_refused(tmp_path):
    save(practised_memory(), tmp_path / "m", IDENTITY)
    with pytest.raises(UserError, match=r"other training data \(6 rows, here 7\)"):
        load(memory_of(7), tmp_path / "m", IDENTITY)


def test_a_file_that_is_not_there_or_no_memory_is_refused(tmp_path):
    import pandas as pd

    with pytest.raises(UserError, match="no such file"):
        load(memory_of(), tmp_path / "m", IDENTITY)
    (tmp_path / "m").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="damaged, or no memory"):
        load(memory_of(), tmp_path / "m", IDENTITY)
    pd.DataFrame({"row": [1]}).to_parquet(tmp_path / "m")
    with pytest.raises(UserError, match="damaged, or no memory: it has no"):
        load(memory_of(), tmp_path / "m", IDENTITY)


def test_no_changed_byte_goes_unseen(tmp_path):
    """Wherever a byte flips, the file is refused or says the same."""
    memory, path = practised_memory(), tmp_path / "m"
    save(memory, path, IDENTITY)
    whole = path.read_bytes()
    whole_memory = memory_of(capacity=5)
    load(whole_memory, path, IDENTITY)
    refused = 0
    places = range(0, len(whole), max(len(whole) // 80, 1))
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        new = memory_of(capacity=5)
        try:
            load(new, path, IDENTITY)
        except UserError:
            refused += 1
        else:
            same(new, whole_memory)
    assert refused > len(places) / 2


def test_a_file_has_a_line_for_each_prompt_without_a_response(tmp_path):
    import pandas as pd

    memory, again = (shared([0, 1, 0, 1, 2], capacity=2) for _ in range(2))
    memory.remember([attempt(2, 0.5), attempt(0, 0.25)])
    memory.saw([3, 1], [1.0, 2.0], 0)
    save(memory, tmp_path / "m", IDENTITY)
    table = pd.read_parquet(tmp_path / "m")
    assert table["row"].tolist() == [2, 0, 1], "two responses to one prompt, and what SFT saw"
    assert table["mean_score"].tolist()[:2] == [0.375, 0.375]
    load(again, tmp_path / "m", IDENTITY)
    same_records(memory, again)
    assert memory.choose(3, np.random.default_rng(1)) == again.choose(3, np.random.default_rng(1))


def test_a_full_memory_keeps_the_newest_response_to_a_hard_prompt_whichever_row_it_was():
    numbers, classes = np.array([0, 0, 1]), np.array([HARD, MEDIUM], np.int8)
    store = Store(2, numbers)
    for number, row in enumerate([0, 1, 2, 2]):
        store.add([attempt(row, 0.0, response=str(number))], classes, np.ones(2, int))
    assert kept(store) == [(1, "1"), (2, "3")]


def test_the_same_run_twice_gives_the_same_file_in_another_process(tmp_path):
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from mht.memory.table import save\n"
        "from tests.support.memory import practised_memory, IDENTITY\n"
        "save(practised_memory(), sys.argv[1], IDENTITY)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "b"], check=False)
    assert done.returncode == 0
    save(practised_memory(), tmp_path / "a", IDENTITY)
    digests = [hashlib.sha256((tmp_path / n).read_bytes()).hexdigest() for n in "ab"]
    assert digests[0] == digests[1]


# -- what it costs ----------------------------------------------------------------------------


def test_twenty_thousand_responses_are_small_and_fast():
    """Bounds that hold on a busy machine; ``python -m bench.memory`` has the figures."""
    from bench.memory import measure

    memory, milliseconds = measure("adaptive", 20_000, 30, 512, steps=5)
    assert len(memory.store) == 20_000
    assert memory.nbytes < 200e6
    assert all(value < 60 for value in milliseconds.values()), milliseconds
