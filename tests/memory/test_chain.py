"""The Markov chain of practice: hand-worked numbers, and what holds for every sequence of steps."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import memory_chain
from mht.memory.markov.chain import Chain
from mht.memory.markov.clusters import cluster

STATES = 5
REWARDS = st.floats(-2, 2).map(lambda x: round(x, 3))
STEPS = st.lists(
    st.lists(
        st.tuples(st.integers(0, STATES - 1), st.integers(0, STATES - 1), REWARDS, REWARDS),
        min_size=1,
        max_size=8,
    ),
    max_size=6,
)


def learned(steps, **options):
    chain = Chain(STATES, **options)
    for batch in steps:
        chain.update(*zip(*batch, strict=True))
    return chain


def three_states(**options):
    """0 -> 1 surely; 1 -> 0 and 1 -> 2 alike; 2 -> 0 surely."""
    chain = Chain(3, alpha=1.0, gamma=0.0, decay=1.0, **options)
    chain.update([0, 1, 1, 2], [1, 0, 2, 0], [2.0, 3.0, 3.0, 0.5], [9.0] * 4)
    return chain


def draws(seed):
    return np.random.default_rng(seed)


def test_update_is_alpha_times_reward_and_discounted_next_reward():
    chain = Chain(3, alpha=0.5, gamma=0.9, decay=1.0)
    chain.update([0, 0], [1, 2], [1.0, 1.0], [2.0, 0.0])
    # 0.5 (1 + 0.9 x 2) = 1.4 and 0.5 (1 + 0) = 0.5
    assert chain.transition_probabilities(0).tolist() == pytest.approx([0, 1.4 / 1.9, 0.5 / 1.9])
    assert chain.next_state(0) == 1
    assert chain.transitions == 2


def test_older_experience_counts_less():
    chain = Chain(2, alpha=1.0, gamma=0.0, decay=0.5)
    chain.update([0], [0], [1.0], [0.0])
    chain.update([0], [1], [1.0], [0.0])  # the first weighs a half by now
    assert chain.transition_probabilities(0).tolist() == pytest.approx([1 / 3, 2 / 3])


def test_negative_gains_are_clipped_at_nothing_and_leave_no_debt():
    chain = Chain(3, alpha=1.0, gamma=0.0, decay=1.0)
    chain.update([0, 0], [1, 2], [1.0, -1.0], [0.0, 0.0])
    assert chain.transition_probabilities(0).tolist() == [0, 1, 0]
    chain.update([0, 0], [1, 2], [-5.0, 1.0], [0.0, 0.0])
    assert chain.transition_probabilities(0).tolist() == [0, 0, 1]
    assert chain.transitions == 1
    chain.update([0, 0], [1, 1], [-5.0, 6.0], [0.0, 0.0])  # added up first: 1
    assert chain.transition_probabilities(0).tolist() == [0, 0.5, 0.5]


def test_a_state_without_transitions_leads_anywhere():
    chain = Chain(4)
    assert chain.transition_probabilities(2).tolist() == [0.25] * 4
    assert chain.next_state(2) is None
    assert set(chain.sample([2] * 200, draws(0)).tolist()) == {0, 1, 2, 3}
    assert chain.stationary().tolist() == pytest.approx([0.25] * 4)
    assert chain.entropy([0.25] * 4) == pytest.approx(np.log(4))


def test_a_full_row_drops_its_lightest_for_a_heavier_one():
    chain = Chain(4, alpha=1.0, gamma=0.0, decay=1.0, out_degree=2)
    chain.update([0, 0], [1, 2], [1.0, 3.0], [0.0, 0.0])
    chain.update([0], [3], [0.5], [0.0])  # lighter than both
    assert chain.transition_probabilities(0).tolist() == [0, 0.25, 0.75, 0]
    chain.update([0], [3], [2.0], [0.0])
    assert chain.transition_probabilities(0).tolist() == pytest.approx([0, 0, 0.6, 0.4])
    assert chain.transitions == 2


def test_stationary_distribution_by_hand():
    # pi0 = pi1/2 + pi2, pi1 = pi0, pi2 = pi1/2: (2, 2, 1) / 5
    assert three_states().stationary(0.0).tolist() == pytest.approx([0.4, 0.4, 0.2])


def test_stationary_distribution_with_restart_solves_its_equation():
    chain = three_states(exploration=0.3)
    matrix = np.stack([chain.transition_probabilities(state) for state in range(3)])
    found = chain.stationary()
    assert found.tolist() == pytest.approx((0.7 * found @ matrix + 0.1).tolist())


def test_stationary_of_a_cycle_settles():
    chain = Chain(2, gamma=0.0)
    chain.update([0, 1], [1, 0], [1.0, 1.0], [0.0, 0.0])
    assert chain.stationary(0.0).tolist() == pytest.approx([0.5, 0.5])
    assert chain.entropy([0.5, 0.5]) == 0.0


def test_closed_classes_share_by_what_flows_in():
    chain = Chain(4, gamma=0.0)  # 0 and 3 keep who is there; 1 and 2 lead to 0
    chain.update([0, 1, 2, 3], [0, 0, 0, 3], [1.0] * 4, [0.0] * 4)
    assert chain.stationary(0.0).tolist() == pytest.approx([0.75, 0, 0, 0.25], abs=1e-9)
    # x3 = 0.8 x3 + 0.05, x1 = x2 = 0.05, x0 the rest
    assert chain.stationary(0.2).tolist() == pytest.approx([0.65, 0.05, 0.05, 0.25])


def test_entropy_by_hand():
    assert three_states().entropy([0.4, 0.4, 0.2]) == pytest.approx(0.4 * np.log(2))


def test_draws_follow_the_probabilities():
    chain = three_states(exploration=0.3)
    found = np.bincount(chain.sample([1] * 20_000, draws(1)), minlength=3) / 20_000
    expected = 0.7 * chain.transition_probabilities(1) + 0.3 / 3
    assert np.abs(found - expected).max() < 0.012  # over 3 standard errors


def test_draws_need_as_many_numbers_whatever_comes_of_them():
    generators = draws(3), draws(3)
    three_states(exploration=1.0).sample([0, 1], generators[0])
    Chain(3, exploration=0.0).sample([0, 1], generators[1])
    assert generators[0].bit_generator.state == generators[1].bit_generator.state


def test_decay_below_the_smallest_number_keeps_the_probabilities():
    chain, still = three_states(), three_states()
    for _ in range(300):
        chain.fade(0.1)
        assert chain.transition_probabilities(1).tolist() == [0.5, 0, 0.5]
    assert chain.stationary().tolist() == pytest.approx(still.stationary().tolist())
    for _ in range(300):
        chain.fade(0.1)  # by now it is past what a float64 holds
    assert chain.transitions == 0


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(1, 6))
def test_rows_are_distributions(steps, degree):
    chain = learned(steps, out_degree=degree)
    rows = np.stack([chain.transition_probabilities(state) for state in range(STATES)])
    assert (rows >= 0).all()
    assert rows.sum(axis=1) == pytest.approx(np.ones(STATES))
    sparse = chain.matrix().toarray()
    filled = sparse.sum(axis=1) > 0
    assert np.allclose(sparse[filled], rows[filled])
    assert ((sparse > 0).sum(axis=1) <= degree).all()
    found = chain.stationary()
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1)
    assert 0 <= chain.entropy(found) <= np.log(STATES) + 1e-9


@settings(max_examples=40, deadline=None)
@given(STEPS, st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_decay_commutes(steps, first, second):
    chains = learned(steps), learned(steps), learned(steps)
    before = chains[0].matrix().toarray()
    for factor in (first, second):
        chains[0].fade(factor)
    for factor in (second, first):
        chains[1].fade(factor)
    chains[2].fade(first * second)
    assert np.allclose(chains[0].matrix().toarray(), before)
    for chain in chains:  # the same gain finds the same weights
        chain.update([0], [1], [1.0], [1.0])
    assert np.allclose(chains[0].matrix().toarray(), chains[1].matrix().toarray())
    assert np.allclose(chains[0].matrix().toarray(), chains[2].matrix().toarray())


@settings(max_examples=40, deadline=None)
@given(STEPS, STEPS, st.integers(0, 1000))
def test_a_saved_chain_goes_on_exactly(before, after, seed):
    chain = learned(before)
    again = Chain(STATES)
    again.load_state_dict(chain.state_dict())
    for one in (chain, again):
        for batch in after:
            one.update(*zip(*batch, strict=True))
    states = (chain.state_dict(), again.state_dict())
    assert states[0]["scale"] == states[1]["scale"]
    assert all((states[0][key] == states[1][key]).all() for key in ("to", "weight"))
    assert (chain.sample([0, 1], draws(seed)) == again.sample([0, 1], draws(seed))).all()


def test_a_saved_chain_is_a_copy():
    chain = three_states()
    kept = chain.state_dict()
    chain.update([0], [2], [1.0], [1.0])
    again = Chain(3)
    again.load_state_dict(kept)
    assert again.transitions == 4


def test_another_chains_state_is_refused():
    with pytest.raises(ValueError, match="3, 3"):
        Chain(4).load_state_dict(three_states().state_dict())


@pytest.mark.parametrize(
    "options",
    [{"states": 0}, {"alpha": 0.0}, {"gamma": 1.1}, {"decay": 0.0}, {"exploration": 2.0}],
)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="a chain needs"):
        Chain(**{"states": 3, **options})


def test_a_large_chain_is_small():
    assert Chain(20_000).nbytes < 10e6


def test_clusters_are_the_groups_that_are_there():
    random = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    truth = random.integers(0, 3, 90)
    points = centres[truth] + random.normal(0, 0.1, (90, 2))
    groups, typical = cluster(points, 3, seed=0)
    assert len({(a, b) for a, b in zip(truth, groups, strict=True)}) == 3
    for group, row in enumerate(typical):
        members = points[groups == group]
        distances = np.linalg.norm(members - members.mean(axis=0), axis=1)
        assert np.linalg.norm(points[row] - members.mean(axis=0)) == distances.min()


def test_clusters_are_decided_by_the_seed():
    points = np.random.default_rng(1).normal(size=(60, 4))
    first, again, other = (cluster(points, 5, seed=seed)[0] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_no_more_clusters_than_different_prompts():
    groups, typical = cluster(np.array([[1.0], [2.0], [1.0], [2.0]]), 8, seed=0)
    assert sorted(typical.tolist()) == [0, 1]
    assert groups[0] == groups[2] != groups[1] == groups[3]
    with pytest.raises(ValueError, match="k-means needs"):
        cluster(np.zeros((0, 3)), 2, seed=0)


def test_the_bench_says_what_a_chain_costs(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["memory_chain", "--states", "8", "--lanes", "4"])
    memory_chain.main()
    said = capsys.readouterr().out
    assert re.search(r"8 states, 64 transitions, .*4 updates and draws \d+\.\d\d ms", said)
