"""Statistics over training seeds: hand-worked numbers, scipy's answers, and properties."""

import math

import numpy as np
import pytest
from scipy import stats

from mht.evaluation.over_seeds import (
    cliffs_delta,
    cohens_d,
    crossed_p,
    interquartile_mean,
    per_seed,
    seeds_difference,
    seeds_interval,
)
from mht.evaluation.statistics import paired_difference


def normal(seeds=10, units=40, *, mean=0.0, between=0.1, within=0.3, seed=0):
    """(1, S, U) values with a spread between seeds and one within."""
    random = np.random.default_rng(seed)
    centres = mean + between * random.standard_normal((1, seeds, 1))
    return centres + within * random.standard_normal((1, seeds, units))


def test_per_seed_values():
    assert per_seed([[[1.0, 2.0], [3.0, 5.0]]]).tolist() == [1.5, 4.0]
    nats, tokens = [[2.0, 4.0], [1.0, 1.0]], [[1.0, 2.0], [2.0, 2.0]]
    expected = [math.exp(6 / 3), math.exp(2 / 4)]
    assert per_seed([nats, tokens], "perplexity") == pytest.approx(expected)


def test_interquartile_mean_is_scipys_trimmed_mean():
    from scipy.stats import trim_mean

    random = np.random.default_rng(0)
    for count in (1, 2, 3, 4, 7, 10, 23):
        values = random.standard_normal(count)
        assert interquartile_mean(values) == pytest.approx(trim_mean(values, 0.25))
    table = random.standard_normal((10, 3))
    assert interquartile_mean(table, axis=0) == pytest.approx(trim_mean(table, 0.25, axis=0))
    assert interquartile_mean([0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 9.0]) == 1.0


def test_effect_sizes_by_hand():
    assert cohens_d([1.0, 3.0], [0.0, 0.0]) == pytest.approx(2 / math.sqrt(2))
    assert cohens_d([1.0, 2.0], [0.0, 1.0]) is None, "all differences are alike"
    assert cohens_d([1.0], [0.0]) is None
    assert cliffs_delta([3.0, 4.0], [1.0, 2.0]) == 1.0
    assert cliffs_delta([1.0, 2.0], [1.0, 2.0]) == 0.0
    assert cliffs_delta([1.0, 1.0, 5.0], [1.0, 2.0]) == pytest.approx((2 - 2) / 6)


def test_cliffs_delta_is_that_of_the_mann_whitney_statistic():
    from scipy.stats import mannwhitneyu

    random = np.random.default_rng(1)
    a, b = random.integers(5, size=9), random.integers(4, size=11)
    u = mannwhitneyu(a, b).statistic
    assert cliffs_delta(a, b) == pytest.approx(2 * u / (9 * 11) - 1)


def test_the_value_is_the_mean_over_seeds_and_the_interval_holds_it():
    values = normal()
    found = seeds_interval(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.low < found.mean < found.high
    assert found == seeds_interval(values), "follows from the seed"
    assert seeds_interval(np.ones((1, 4, 5))) == (1.0, 1.0, 1.0)


def test_the_interval_counts_both_seeds_and_units():
    """Its width is that of the crossed variances, s_seeds^2 / S + s_units^2 / U, or a bit more."""
    values = normal(seeds=40, units=60, between=0.3, within=0.0) + np.linspace(-1, 1, 60)
    low, high = seeds_interval(values, resamples=4000)[1:]
    seeds, units = values[0].mean(axis=1), values[0].mean(axis=0)
    spread = math.sqrt(seeds.var() / 40 + units.var() / 60)
    assert (high - low) / (2 * 1.96) == pytest.approx(spread, rel=0.06)
    over_seeds = seeds_interval(np.repeat(seeds[None, :, None], 60, axis=2), resamples=4000)
    assert over_seeds.high - over_seeds.low < 0.9 * (high - low)


def test_one_seed_gives_an_interval_over_units_alone():
    values = normal(seeds=1, units=200)
    low, high = seeds_interval(values, resamples=4000)[1:]
    assert (high - low) / (2 * 1.96) == pytest.approx(values.std() / math.sqrt(200), rel=0.06)
    assert crossed_p(values, values + 1) == 1.0, "of another seed it says nothing"
    found = seeds_difference(values, values[:, :, ::-1])
    assert found[:4] == paired_difference(values[0], values[:, 0, ::-1])
    assert found.cohens_d is None


def test_the_interquartile_interval_is_not_moved_by_one_seed():
    values = normal()
    spoiled = values.copy()
    spoiled[:, 0] -= 100
    assert seeds_interval(spoiled, average="iqm").mean > -0.5
    assert seeds_interval(spoiled).mean < -9


def test_differences_are_paired_by_seed_and_unit():
    a = normal(between=5.0, within=5.0)
    found = seeds_difference(a + 0.1 + 0.01 * normal(seed=1), a)
    assert found.difference == pytest.approx(0.1, abs=0.01)
    assert 0.09 < found.low < found.high < 0.11, "what the variants share cancels"
    assert found.p < 1e-9
    assert abs(found.cliffs_delta) < 0.2, "which is not paired"
    assert found.cohens_d > 5


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        # over seeds 2 and 4, over units 2 and 4: t of seeds is 3 with one degree of freedom,
        # min F' is 9 / (1 + 1) with two, which would be .168
        ([[1.0, 3.0], [3.0, 5.0]], 1 - 2 / math.pi * math.atan(3)),
        # seeds agree, units are 0 and 2: t is 1 with one degree of freedom
        ([[0.0, 2.0], [0.0, 2.0]], 0.5),
        ([[1.0, 1.0], [1.0, 1.0]], 0.0),
        ([[1.0, 1.0], [-1.0, -1.0]], 1.0),
        ([[1.0, 3.0]], 1.0),  # one seed says nothing of another
    ],
)
def test_p_by_hand(differences, expected):
    a = np.array([differences])
    assert crossed_p(a + 2, np.full_like(a, 2)) == pytest.approx(expected)
    assert crossed_p(np.full_like(a, 2), a + 2) == pytest.approx(expected)


def test_p_is_students_where_only_seeds_or_only_units_differ():
    spread = np.random.default_rng(3).normal(0.4, 1, 9)
    for values in (spread[:, None].repeat(5, axis=1), spread[None].repeat(5, axis=0)):
        expected = stats.ttest_1samp(spread, 0).pvalue
        assert crossed_p(values[None], np.zeros((1, *values.shape))) == pytest.approx(expected)


def test_p_of_a_perplexity_is_that_of_its_first_order():
    """A small change of nats per token changes exp(nats) in proportion: so do both spreads."""
    nats, change = 2 + 0.1 * np.abs(normal(seeds=4)), 1e-5 * normal(seeds=4, mean=0.2, seed=1)
    ones = np.ones_like(nats)
    found = crossed_p(
        np.concatenate([nats + change, ones]),
        np.concatenate([nats, ones]),
        statistic="perplexity",
    )
    middle = np.exp(nats.mean(axis=2, keepdims=True))
    assert found == pytest.approx(crossed_p(middle * change, 0 * change), rel=1e-3)


@pytest.mark.parametrize("seeds", [2, 3, 8])
@pytest.mark.parametrize(("between", "units"), [(0.0, 0.35), (0.1, 0.35), (0.5, 0.35), (0.1, 0.0)])
def test_no_difference_is_found_no_more_often_than_said(seeds, between, units):
    """Seeds and prompts both have effects of their own; one in twenty is what chance may find."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(400):
        prompts = units * random.standard_normal((1, 1, 48))
        a = between * random.standard_normal((1, seeds, 1)) + prompts
        a = a + 0.3 * random.standard_normal((1, seeds, 48))
        found.append(crossed_p(a, np.zeros_like(a)) < 0.05)
    assert np.mean(found) < 0.085, "three standard errors above .05"


def test_three_seeds_can_find_a_difference():
    a = normal(seeds=3, units=192, mean=0.2, between=0.02)
    assert crossed_p(a, np.zeros_like(a)) < 0.02


def test_perplexities_over_seeds():
    nats = np.abs(normal(seeds=3, units=6, mean=5))[0]
    tokens = np.ones_like(nats)
    data = np.stack([nats, tokens])
    found = seeds_interval(data, statistic="perplexity")
    assert found.mean == pytest.approx(np.exp(nats.mean(axis=1)).mean())
    assert found.low < found.mean < found.high
    same = seeds_difference(data, data, statistic="perplexity")
    assert same[:4] == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    "values", [np.ones((2, 3)), np.ones((1, 0, 3)), np.full((1, 2, 2), np.nan)]
)
def test_wrong_values_are_refused(values):
    with pytest.raises(ValueError):
        seeds_interval(values)


def test_shapes_must_match():
    with pytest.raises(ValueError, match="pairs must match"):
        seeds_difference(np.ones((1, 2, 3)), np.ones((1, 2, 4)))
