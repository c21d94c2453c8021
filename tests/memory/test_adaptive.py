"""Difficulty, spaced repetition and draws: hand-worked numbers and what holds of any."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mht.memory.adaptive import draw, weights
from mht.memory.difficulty import EASY, HARD, MEDIUM, classes, difficulties, places
from mht.memory.ranking import Ranking
from mht.memory.spaced import moved, next_due
from tests.support.memory import attempt, memory_of, shared

NONE = float("nan")
few = st.integers(1, 30)
numbers = few.flatmap(lambda n: arrays(np.float64, n, elements=st.integers(-3, 3).map(float)))
some_unknown = few.flatmap(
    lambda n: arrays(np.float64, n, elements=st.sampled_from([NONE, -1.0, 0.0, 0.5, 1.0]))
)
MIX = {"exponent": 0.7, "staleness": 0.2, "floor": 0.1}


# -- places and classes -----------------------------------------------------------------------


def test_places_are_mid_ranks():
    assert places(np.array([5.0, 1.0, 3.0, NONE])).tolist()[:3] == [5 / 6, 1 / 6, 3 / 6]
    assert np.isnan(places(np.array([NONE, NONE]))).all()
    assert len(places(np.array([]))) == 0


@given(some_unknown, st.randoms(use_true_random=False))
def test_places_follow_the_values_and_not_their_order(values, random):
    found = places(values)
    known = ~np.isnan(values)
    assert (np.isnan(found) == ~known).all()
    assert ((found[known] > 0) & (found[known] < 1)).all()
    if known.any():
        assert found[known].mean() == pytest.approx(0.5)
    below = values[:, None] < values[None]
    assert (found[:, None] < found[None])[below].all()
    same = values[:, None] == values[None]
    assert (found[:, None] == found[None])[same].all()
    order = list(range(len(values)))
    random.shuffle(order)
    np.testing.assert_array_equal(places(values[order]), found[order])


@given(few, st.sampled_from([NONE, 0.0, 1.0]), st.sampled_from([0.0, 0.3]))
def test_rows_that_are_alike_are_all_medium(count, score, score_weight):
    alike = places(np.full(count, score))
    found = difficulties(alike, places(np.ones(count)), alike, score_weight)
    assert (found == 0.5).all()
    assert (classes(found, 0.5, 0.5) == MEDIUM).all()


@given(st.integers(1, 12), st.data())
def test_a_ranking_kept_up_to_date_is_the_places_from_scratch(count, data):
    values, ranking = np.full(count, NONE), Ranking(count)
    number = st.sampled_from([NONE, -1.0, 0.0, 0.5, 1.0, 2.0])
    for _ in range(data.draw(st.integers(1, 5))):
        which = data.draw(st.lists(st.integers(0, count - 1), unique=True))
        values[which] = data.draw(arrays(np.float64, len(which), elements=number))
        ranking.change(np.array(which, np.int64), values[which])
        np.testing.assert_array_equal(ranking.places, places(values))


def test_low_scores_and_high_losses_are_hard():
    """Three rows; by score the places are 5/6, 3/6, 1/6, and by loss the same."""
    by_score = places(-np.array([0.0, 0.5, 1.0]))
    by_loss = places(np.array([3.0, 2.0, 1.0]))
    nothing = np.full(3, NONE)
    found = difficulties(by_score, by_loss, nothing, 1.0)
    assert found.tolist() == [5 / 6, 3 / 6, 1 / 6]
    assert classes(found, 0.33, 0.33).tolist() == [HARD, MEDIUM, EASY]


def test_losses_of_two_kinds_are_not_compared():
    """Row 0 has a small SFT loss and row 1 a huge one of the critic's: each leads its own kind."""
    by_loss, by_sft_loss = places(np.array([NONE, 90.0, 80.0])), places(np.array([0.2, NONE, 0.1]))
    found = difficulties(np.full(3, NONE), by_loss, by_sft_loss, 1.0)
    assert found[0] == found[1] > found[2]


def test_score_weight_tips_the_scales():
    by_score, by_loss = places(-np.array([0.0, 1.0])), places(np.array([1.0, 2.0]))
    nothing = np.full(2, NONE)
    assert difficulties(by_score, by_loss, nothing, 2.0).tolist() == [0.75, 0.25]
    assert difficulties(by_score, by_loss, nothing, 0.5).tolist() == [0.25, 0.75]
    assert difficulties(by_score, by_loss, nothing, 0.0).tolist() == [0.25, 0.75]


# -- spaced repetition ------------------------------------------------------------------------


def test_a_solved_row_comes_back_twice_as_late_and_a_failed_one_next():
    box, clock, seen = np.array([0]), 0, []
    for kind in (EASY, EASY, EASY, MEDIUM, HARD, EASY):
        box = moved(box, np.array([kind]), 4)
        due = next_due(clock, box, 1)
        seen.append((int(box[0]), int(due[0]) - clock))
        clock = int(due[0])
    assert seen == [(1, 2), (2, 4), (3, 8), (3, 8), (0, 1), (1, 2)]


@given(st.integers(1, 8), st.data())
def test_boxes_stay_in_range(count, data):
    boxes = data.draw(arrays(np.int64, 5, elements=st.integers(0, count - 1)))
    kinds = data.draw(arrays(np.int8, 5, elements=st.sampled_from([EASY, MEDIUM, HARD])))
    after = moved(boxes, kinds, count)
    assert ((after >= 0) & (after < count)).all()
    assert (after[kinds == HARD] == 0).all()
    assert (after >= boxes)[kinds != HARD].all()


# -- draws ------------------------------------------------------------------------------------


def test_weights_by_hand():
    """Ranks 1 and 2 with exponent 1: 2/3 and 1/3; ages 1 and 3: 1/4 and 3/4."""
    hard_first, ages = np.array([0.75, 0.25]), np.array([1.0, 3.0])
    found = weights(hard_first, ages, exponent=1.0, staleness=0.0, floor=0.0)
    assert found.tolist() == pytest.approx([2 / 3, 1 / 3])
    found = weights(hard_first, ages, exponent=1.0, staleness=0.3, floor=0.1)
    assert found[0] == pytest.approx(0.6 * 2 / 3 + 0.3 * 1 / 4 + 0.1 / 2)


@given(numbers, st.data())
def test_weights_are_chances_with_a_floor(values, data):
    ages = data.draw(arrays(np.float64, len(values), elements=st.integers(0, 9).map(float)))
    found = weights(places(values), ages, **MIX)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0.1 / len(values) * (1 - 1e-12)).all()
    without_age = weights(places(values), ages * 0, **MIX)
    harder = values[:, None] > values[None]
    assert (without_age[:, None] > without_age[None])[harder].all()
    same = values[:, None] == values[None]
    assert (without_age[:, None] == without_age[None])[same].all()


def test_draws_are_in_proportion():
    generator = np.random.default_rng(0)
    chances = np.array([0.6, 0.3, 0.1])
    first = [draw(chances, 1, generator)[0] for _ in range(20_000)]
    np.testing.assert_allclose(np.bincount(first) / len(first), chances, atol=0.012)


@given(st.integers(0, 12), st.integers(0, 99))
def test_draws_are_different_and_possible(n, seed):
    chances = np.array([0.0, 0.5, 0.0, 0.25, 0.25])
    found = draw(chances, n, np.random.default_rng(seed)).tolist()
    assert len(found) == len(set(found)) == min(n, 3)
    assert set(found) <= {1, 3, 4}


# -- the memory -------------------------------------------------------------------------------


def test_practice_moves_classes_boxes_and_due():
    memory = memory_of()
    memory.remember([attempt(0, 0.0, 3.0), attempt(1, 0.5, 2.0), attempt(2, 1.0, 1.0)])
    assert memory.classes.tolist() == [HARD, MEDIUM, EASY, MEDIUM, MEDIUM, MEDIUM]
    assert memory.records["box"].tolist() == [0, 0, 1, 0, 0, 0]
    assert memory.records["due"].tolist()[:3] == [2, 2, 3]
    assert memory.due.tolist() == [0, 1], "2 was solved and waits; 3 to 5 are not known"
    memory.saw([4], [0.7], step=1)
    assert memory.due.tolist() == [0, 1, 2, 4]
    assert memory.records["sft_loss"][4] == 0.7


def test_means_run_and_several_attempts_at_a_row_count_once():
    memory = memory_of(newest=0.25)
    memory.remember([attempt(0, 1.0)])
    memory.remember([attempt(0, 0.0), attempt(0, 1.0)])
    assert memory.records["mean_score"][0] == 1.0 + 0.25 * (0.5 - 1.0)
    assert memory.records["practised"][0] == 3
    assert memory.clock == 2


def test_a_row_without_label_teaches_nothing_of_its_loss():
    memory = memory_of()
    memory.saw([0, 1], [NONE, 2.0], step=0)
    memory.saw([0, 1], [1.0, NONE], step=1)
    assert memory.records["sft_loss"].tolist()[:2] == [1.0, 2.0]


def test_hard_rows_are_chosen_more_often_and_easy_ones_still():
    memory = memory_of(boxes=1)
    memory.remember([attempt(i, i / 5) for i in range(6)])
    generator = np.random.default_rng(0)
    counts = np.bincount([memory.choose(1, generator)[0] for _ in range(3000)], minlength=6)
    assert counts[0] > 1.5 * counts[2] and counts[2] > counts[5] > 100


def test_what_is_not_known_or_not_due_is_not_chosen():
    memory, generator = memory_of(), np.random.default_rng(0)
    assert memory.choose(4, generator) == []
    memory.remember([attempt(0, 0.0), attempt(1, 0.5), attempt(2, 1.0)])
    assert sorted(memory.choose(4, generator)) == [0, 1]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=40))
def test_whatever_happens_the_figures_hold(history):
    memory = memory_of(capacity=8)
    for step, (row, score) in enumerate(history):
        memory.remember([attempt(row, float(score), step=step)])
        chosen = memory.choose(3, np.random.default_rng(step))
        assert len(chosen) == len(set(chosen)) and set(chosen) <= set(memory.known.tolist())
    figures = memory.statistics()
    assert sum(figures[f"{k}_share"] for k in ("easy", "medium", "hard")) == pytest.approx(1)
    assert figures["responses"] == min(len(history), 8)
    assert figures["prompts"] == len({row for row, _ in history})
    assert figures["times_practised"] == pytest.approx(len(history) / figures["prompts"])
    assert 0 <= figures["due_share"] <= 1


# -- rows with one prompt ---------------------------------------------------------------------


def test_rows_with_one_prompt_are_known_as_one():
    memory = shared([5, 6, 5, 7], newest=0.5)
    assert memory.rows.numbers.tolist() == [0, 1, 0, 2]
    assert memory.rows.first.tolist() == [0, 1, 3]
    assert memory.rows.sizes.tolist() == [2, 1, 1]
    memory.remember([attempt(0, 0.0, 2.0), attempt(1, 1.0, 1.0), attempt(3, 0.5, 1.5)])
    memory.remember([attempt(2, 1.0, 1.0)])
    assert memory.records["mean_score"].tolist() == [0.5, 1.0, 0.5]
    assert memory.records["mean_loss"].tolist() == [1.5, 1.0, 1.5]
    memory.saw([0, 2], [1.0, 3.0], step=0)
    assert memory.records["sft_loss"].tolist()[0] == 2.0
    assert memory.records["practised"].tolist() == [4, 1, 1]
    assert memory.statistics()["prompts"] == 3


def test_the_rows_of_a_prompt_share_its_chance():
    """Prompt 0 has three rows and is as hard as prompt 1 with one: half of the draws each."""
    memory, generator = shared([0, 0, 0, 1], boxes=1), np.random.default_rng(0)
    memory.remember([attempt(0, 0.5), attempt(3, 0.5)])
    counts = np.bincount([memory.choose(1, generator)[0] for _ in range(6000)], minlength=4)
    np.testing.assert_allclose(counts / 6000, [1 / 6, 1 / 6, 1 / 6, 1 / 2], atol=0.02)
    assert sorted(memory.choose(9, generator)) == [0, 1, 2, 3], "each row once"


def test_a_prompt_that_is_not_due_keeps_all_its_rows_back():
    memory = shared([0, 0, 1, 2, 2])
    memory.remember([attempt(1, 0.0, 3.0), attempt(2, 0.5, 2.0), attempt(3, 1.0, 1.0)])
    assert memory.due.tolist() == [0, 1]
    assert sorted(memory.choose(9, np.random.default_rng(0))) == [0, 1, 2]


def test_a_row_of_each_prompt_is_drawn_and_another_when_it_comes_again():
    rows, generator = shared([0, 1, 0, 0]).rows, np.random.default_rng(0)
    assert sorted(rows.draw(np.array([0, 0, 0, 1]), generator).tolist()) == [0, 1, 2, 3]
    seen = np.bincount([rows.draw(np.array([0]), generator)[0] for _ in range(900)], minlength=4)
    assert seen[1] == 0 and (seen[[0, 2, 3]] > 240).all()
    before = generator.bit_generator.state
    assert rows.draw(np.array([1]), generator).tolist() == [1]
    assert generator.bit_generator.state == before


def test_a_single_row_is_never_hard():
    memory = memory_of()
    for step in range(5):
        memory.remember([attempt(0, 0.0, step=step)])
    assert memory.classes[0] == MEDIUM
    assert memory.records["box"][0] == 0
