"""Markov memory: states, lanes, signals, the rows it chooses, and an exact return."""

import csv

import numpy as np
import pytest
import torch

from mht.core.errors import ConfigError, UserError
from mht.memory import make_memory
from mht.memory.base import Attempt, Rows
from mht.memory.markov import memory as markov
from mht.memory.markov import transitions
from mht.memory.markov.memory import MarkovMemory
from mht.memory.table import load, save
from mht.models.embeddings import mean_embeddings
from mht.models.loading import load_causal_lm
from mht.training.practice import Practice, section_named
from tests.support.jobs import Job, ends_the_same
from tests.support.training import TokenShare, examples, hybrid_config


def rows_of(prompts):
    return Rows(
        prompts=[f"p{p}" for p in prompts],
        targets=["t"] * len(prompts),
        prompt_ids=[[p] for p in prompts],
    )


def attempts(rows, scores, step=0):
    return [
        Attempt(row, "", "r", "t", [row], [5, 6], [-1.0, -2.0], True, float(score), 0.1, step)
        for row, score in zip(rows, scores, strict=True)
    ]


def assert_equal(ours, theirs):
    """Two states are the same to the last bit."""
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value.nan_to_num(-9), theirs[key].nan_to_num(-9)), key
        else:
            assert value == theirs[key], key


def by_prompt(prompts=range(4), **options):
    return make_memory("markov", rows_of(list(prompts)), states="rows", **options)


def by_cluster(**options):
    embeddings = np.repeat([[0.0, 0.0], [9.0, 9.0]], 6, axis=0)
    return make_memory("markov", rows_of(range(12)), embeddings=embeddings, clusters=2, **options)


def draws(seed=0):
    return np.random.default_rng(seed)


def practise(memory, steps, seed=0):
    """Some steps of a batch of 4 of which it chooses the first 2; what it chose."""
    generator, chosen = draws(seed), []
    for step in range(steps):
        rows = memory.choose(2, generator)
        chosen += rows
        rows = rows + generator.integers(len(memory.rows), size=4 - len(rows)).tolist()
        memory.remember(attempts(rows, [(row % 3) / 2 for row in rows], step))
    return chosen


def test_rows_with_one_prompt_are_one_state():
    memory = by_prompt([7, 8, 7, 9, 8])
    assert memory.chain.states == 3
    assert memory.states_of(memory.rows.numbers).tolist() == [0, 1, 0, 2, 1]
    assert memory.state_names() == ["p7", "p8", "p9"]


def test_states_of_clusters_are_classes_of_difficulty():
    memory = by_cluster()
    assert memory.chain.states == 6
    memory.remember(attempts([0, 1, 2, 6, 7, 8], [0.0, 0.5, 1.0, 0.0, 0.5, 1.0]))
    states = memory.states_of(np.array([0, 1, 2, 6, 7, 8, 5])).tolist()
    first, second = states[0] - 2, states[3] - 2  # of the hardest row of each cluster
    assert states == [first + 2, first + 1, first, second + 2, second + 1, second, first + 1]
    assert sorted([first, second]) == [0, 3]
    assert memory.state_names()[first + 2].startswith("hard: p")


def test_lanes_teach_the_chain_by_hand():
    memory = by_prompt(signal="score", gamma=0.5, decay=1.0)
    memory.remember(attempts([0, 1], [1.0, 2.0]))
    assert memory.chain.transitions == 0
    memory.remember(attempts([2, 3], [4.0, 0.0]))  # 0 -> 2 gains 1 + 4/2, 1 -> 3 gains 2
    assert memory.chain.next_state(0) == 2
    assert memory.chain.next_state(1) == 3
    memory.remember(attempts([3, 0], [2.0, 1.0]))
    memory.remember(attempts([0, 0], [0.0, 0.0]))
    memory.remember(attempts([1, 1], [2.0, 4.0]))
    # 0 -> 2 has 3, 0 -> 0 gained 1 + 0, 0 -> 1 gained 0 + 1 and 0 + 2
    assert memory.chain.transition_probabilities(0).tolist() == pytest.approx(
        [1 / 7, 3 / 7, 3 / 7, 0]
    )


@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        # 0 -> 0 and 0 -> 1 with signals (0, 0) -> (1, 3): by the score of what was reached
        ("score", [0.25, 0.75, 0, 0]),
        # worst 0 and best 4: regrets (1, 1) -> (3/4, 1/4)
        ("regret", [1.75 / 3, 1.25 / 3, 0, 0]),
        # nothing known at first; then row 0's score is 1 above its mean of 0, row 1's 1 below 4
        ("progress", [1, 0, 0, 0]),
    ],
)
def test_signals_by_hand(signal, expected):
    memory = by_prompt(signal=signal, gamma=1.0, decay=1.0)
    memory.remember(attempts([0, 0, 1], [0.0, 0.0, 4.0]))
    memory.remember(attempts([0, 1], [1.0, 3.0]))
    assert memory.chain.transition_probabilities(0).tolist() == pytest.approx(expected)


def test_regret_of_equal_scores_is_nothing():
    memory = by_prompt(signal="regret")
    for _ in range(3):
        memory.remember(attempts([0, 1], [-2.0, -2.0]))
    assert memory.chain.transitions == 0


def test_lanes_follow_the_chain():
    memory = by_prompt(signal="score", exploration=0.0)
    memory.remember(attempts([0, 1, 2, 3], [1.0] * 4))
    memory.remember(attempts([1, 2, 3, 0], [1.0] * 4))
    # every lane is where one has been that moved on by one
    assert memory.choose(4, draws()) == [2, 3, 0, 1]
    assert memory.choose(2, draws()) == [2, 3]
    assert memory.choose(6, draws()) == [2, 3, 0, 1, 2, 3]  # more lanes than there are


def test_it_chooses_known_rows_alone():
    memory = by_prompt(exploration=1.0)
    assert memory.choose(4, draws()) == []
    memory.remember(attempts([1, 3], [0.0, 1.0]))
    chosen = memory.choose(50, draws())
    assert len(chosen) == 50
    assert set(chosen) == {1, 3}


def test_progress_is_against_the_mean_of_the_prompt_whichever_row_it_was():
    """Rows 0 and 2 are one prompt: 1, then 3 by the other row, is progress of 2."""
    memory = by_prompt([7, 8, 7], signal="progress", gamma=1.0, decay=1.0)
    memory.remember(attempts([0], [1.0]))
    memory.remember(attempts([2], [3.0]))
    assert memory.records["mean_score"].tolist()[0] == 2.0
    assert memory.chain.next_state(0) == 0


def test_lanes_in_one_cluster_have_different_prompts_then_different_rows():
    twice = rows_of([0, 1, 2, 0, 1, 2])
    memory = make_memory("markov", twice, embeddings=np.zeros((6, 2)), easy=0.0, hard=0.0)
    memory.remember(attempts([0, 1, 2], [0.0, 0.5, 1.0]))
    assert len({row % 3 for row in memory.choose(3, draws())}) == 3
    assert sorted(memory.choose(6, draws())) == list(range(6))


def test_it_can_begin_with_what_sft_saw():
    memory = by_cluster()
    memory.saw([3, 8], [1.0, 2.0], step=0)
    assert set(memory.choose(30, draws())) == {3, 8}


def test_lanes_in_one_state_have_different_rows():
    memory = by_prompt([4] * 10 + [5], exploration=0.0)
    memory.remember(attempts(range(10), [0.0, 1.0] * 5))
    memory.remember(attempts(range(10), [0.0, 1.0] * 5))  # 4 -> 4 is all there is
    assert sorted(memory.choose(10, draws())) == list(range(10))
    assert sorted(memory.choose(20, draws())) == sorted([*range(10), *range(10)])


def test_the_hard_prompts_of_a_state_come_first():
    memory = make_memory(
        "markov", rows_of(range(40)), embeddings=np.zeros((40, 2)), exponent=3.0, easy=0.0, hard=0.0
    )
    memory.remember(attempts(range(40), [row / 40 for row in range(40)]))
    generator = draws()
    chosen = [row for _ in range(100) for row in memory.choose(2, generator)]
    assert np.mean(chosen) < 5  # uniform would be 19.5


def test_what_it_says_of_itself():
    memory = by_cluster()
    practise(memory, 8)
    found = memory.statistics()
    masses = [found[f"stationary_{name}"] for name in ("easy", "medium", "hard")]
    assert sum(masses) == pytest.approx(1)
    assert 0 < found["entropy_nats"] <= np.log(6)
    assert found["transitions"] == memory.chain.transitions > 0
    assert found.keys() == by_cluster().statistics().keys()


def test_regret_leads_to_the_hard_class_and_score_to_the_easy_one():
    shares = {}
    for signal in ("regret", "score"):
        memory = by_cluster(signal=signal)
        practise(memory, 40)
        found = memory.statistics()
        shares[signal] = found["stationary_hard"] - found["stationary_easy"]
    assert shares["regret"] > 0 > shares["score"]


@pytest.mark.parametrize("make", [by_prompt, by_cluster])
def test_a_saved_memory_goes_on_exactly(make):
    memory, again = make(), make(seed=5)
    practise(memory, 6)
    again.load_state_dict(memory.state_dict())
    assert practise(again, 6, seed=1) == practise(memory, 6, seed=1)
    ours, theirs = memory.state_dict(), again.state_dict()
    assert_equal(ours, theirs)
    assert memory.statistics() == again.statistics()


def test_a_memory_of_an_earlier_run_has_its_chain(tmp_path):
    memory, again = by_cluster(), by_cluster(seed=5)
    practise(memory, 6)
    save(memory, tmp_path / "memory.parquet", {"task": 1})
    load(again, tmp_path / "memory.parquet", {"task": 1})
    assert again.own_state() == memory.own_state()
    assert practise(again, 3, seed=1) == practise(memory, 3, seed=1)


def test_too_many_prompts_for_a_state_each_are_refused(monkeypatch):
    monkeypatch.setattr(markov, "MOST_PROMPTS", 3)
    with pytest.raises(ConfigError, match=r"memory\.markov\.states: .*4 different prompts"):
        by_prompt()
    assert by_prompt([1, 2, 2, 3]).chain.states == 3


def test_clusters_need_embeddings():
    with pytest.raises(ValueError, match="embeddings"):
        make_memory("markov", rows_of([1, 2]))


def test_the_kind_is_known_or_refused():
    assert isinstance(make_memory("markov", rows_of([1, 2]), states="rows"), MarkovMemory)
    with pytest.raises(UserError, match=r"unknown memory 'markof' \(did you mean 'markov'\?\)"):
        make_memory("markof", rows_of([1, 2]))


def test_the_chain_can_be_looked_at(tmp_path):
    memory = by_prompt(prompts=[7, 8, 9, 7])
    practise(memory, 8)
    memory.report(tmp_path / "tables", tmp_path)
    assert (tmp_path / "memory_transitions.png").read_bytes().startswith(b"\x89PNG")
    states, moves = (
        list(csv.DictReader((tmp_path / "tables" / f"memory_{name}.csv").open(encoding="utf-8")))
        for name in ("states", "transitions")
    )
    assert [row["name"] for row in states] == ["p7", "p8", "p9"]
    assert sum(int(row["known_prompts"]) for row in states) == len(memory.known)
    assert sum(float(row["stationary"]) for row in states) == pytest.approx(1, abs=1e-4)
    assert len(moves) == memory.chain.transitions
    for move in moves:
        row = memory.chain.transition_probabilities(int(move["from"]))
        assert float(move["probability"]) == pytest.approx(row[int(move["to"])], abs=1e-5)


def test_of_many_states_those_with_the_most_mass_are_drawn(tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr(
        transitions, "draw", lambda *args: shown.update(names=args[2], of=args[3]) or b""
    )
    monkeypatch.setattr(transitions, "SHOWN", 2)
    memory = by_prompt(signal="score")
    memory.remember(attempts([0, 1], [1.0, 1.0]))
    memory.remember(attempts([3, 1], [1.0, 1.0]))
    memory.remember(attempts([1, 3], [1.0, 1.0]))
    memory.report(tmp_path, tmp_path)
    assert shown == {"names": ["p1", "p3"], "of": 4}


@pytest.mark.parametrize(
    ("settings", "kill_at"),
    [({"clusters": 2}, 4), ({"states": "rows", "signal": "progress"}, 8)],
    ids=["clusters", "rows"],
)
def test_a_killed_run_ends_the_same(tmp_path, tiny_model_dir, tiny_tokenizer, settings, kill_at):
    jobs = []

    def job(name):
        jobs.append(Job(
            tmp_path / name, tiny_model_dir(), tiny_tokenizer, unfrozen="all", plan=None,
            memory={"type": "markov", "markov": settings}, reward=TokenShare(),
        ))  # fmt: skip
        return jobs[-1]

    _, rows, *_ = ends_the_same(job, kill_at)
    whole, broken = (each.last.practice.memory.state_dict() for each in jobs)
    assert_equal(whole, broken)
    assert broken["own"]["chain"]["scale"] < 1
    assert {"ppo/memory/entropy_nats", "ppo/memory/stationary_hard"} <= rows[-2][1].keys()


def test_prompts_of_like_words_lie_together(tiny_model_dir, tiny_tokenizer):
    model = load_causal_lm(tiny_model_dir())
    rows = [tiny_tokenizer(text)["input_ids"] for text in ("the film is", "is the film", "an")]
    found = mean_embeddings(model, [*rows, []])
    table = model.get_input_embeddings().weight
    assert found[0].tolist() == pytest.approx(table[rows[0]].mean(0).tolist(), abs=1e-6)
    assert np.abs(found[0] - found[2]).max() > 0
    assert found[3].tolist() == [0] * table.shape[1]


def test_too_many_prompts_are_refused_with_the_path_to_set(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(markov, "MOST_PROMPTS", 3)
    config = hybrid_config(memory={"type": "markov", "markov": {"states": "rows"}})
    with (
        pytest.raises(ConfigError, match=r"ppo\.memory\.markov\.states: .*: set clusters"),
        section_named("ppo"),
    ):
        Practice(examples(tiny_tokenizer), config, 0, tiny_tokenizer)
