"""How soon a score is reached, by hand: first looks, censored seeds, ratios paired by seed."""

import math

import numpy as np
import pytest

from mht.core.errors import ConfigError
from mht.reports.learning.curves import band, bands
from mht.reports.learning.reach import Times, reach_ratio, reached, restricted, since, times_to
from mht.reports.learning.reach_table import reach_rows, reach_summary


def curve(*scores, every=10):
    return [
        {"optimizer_steps": every * i, "sampled_tokens": 5 * i, "score": score}
        for i, score in enumerate(scores)
    ]


def times(at, end):
    return Times(np.asarray(at, float), np.asarray(end, float))


def test_the_first_look_at_or_above_the_score_counts():
    curves = [
        curve(0.0, 0.5, 0.9, 0.2),
        curve(0.0, 0.4, 0.4, 0.4),
        [{"sampled_tokens": 0}, *curve(0.7)],
    ]
    found = times_to(curves, metric="score", score=0.5, cost="optimizer_steps")
    assert found.at.tolist() == [10, math.inf, 0] and found.end.tolist() == [30, 30, 0]
    tokens = times_to(curves[:2], metric="score", score=0.5, cost="sampled_tokens")
    assert tokens.at.tolist() == [5, math.inf] and tokens.horizon == 15
    with pytest.raises(ValueError, match="no 'kl'"):
        times_to(curves, metric="kl", score=0.5, cost="sampled_tokens")


def test_a_seed_that_never_gets_there_counts_with_the_horizon():
    found = reached(times([10, 20, math.inf, math.inf], [40, 40, 40, 60]))
    assert found.share == 0.5 and found.horizon == 40
    assert found.time.mean == (10 + 20 + 40 + 40) / 4
    assert 10 <= found.time.low < found.time.mean < found.time.high <= 40
    assert restricted([1.0, 50.0], 40).tolist() == [1, 40]
    all_alike = reached(times([20, 20, 20], [40, 40, 40]))
    assert all_alike.time == (20, 20, 20) and all_alike.share == 1


def test_a_seed_that_gets_there_after_anothers_end_is_not_there_by_the_horizon():
    found = reached(times([50, 10], [60, 40]))
    assert found.share == 0.5 and found.time.mean == (40 + 10) / 2


def test_ratios_are_paired_by_seed():
    slow = times([10, 20, 30, 40], [80] * 4)
    fast = times([5, 10, 15, 20], [60] * 4)
    found = reach_ratio(fast, slow)
    assert found.ratio == pytest.approx(0.5) and found.horizon == 60
    assert (found.low, found.high) == pytest.approx((0.5, 0.5)), "in every draw of seeds"
    assert (found.share_a, found.share_b) == (1, 1)
    assert reach_ratio(slow, fast).ratio == pytest.approx(2)
    unpaired = reach_ratio(times([20, 5, 15, 10], [60] * 4), slow)
    assert unpaired.ratio == pytest.approx(0.5) and unpaired.low < 0.5 < unpaired.high


def test_a_censored_ratio_is_nearer_to_one():
    found = reach_ratio(times([10, 10], [40, 40]), times([math.inf, math.inf], [40, 40]))
    assert found.ratio == 0.25 and found.share_b == 0, "at most: b takes 40 or longer"


def test_no_ratio_where_nothing_can_be_said():
    never = times([math.inf], [40])
    assert reach_ratio(never, never) is None
    assert reach_ratio(times([10], [40]), times([0], [40])) is None
    with pytest.raises(ValueError, match="1 and 2 seeds"):
        reach_ratio(never, times([1, 2], [40, 40]))


def test_the_table_says_at_least_where_seeds_are_censored():
    curves = {
        "base": [[], []],
        "quick": [curve(0.0, 0.9, 0.9), curve(0.0, 0.8, 0.9)],
        "slow": [curve(0.0, 0.1, 0.9), curve(0.0, 0.1, 0.2)],
    }
    found = reach_summary(curves, metric="score", score=0.8, subject="slow", resamples=50)
    assert found["variants"].keys() == {"quick", "slow"}
    steps = {line["cost"]: line for line in found["ratios"]}
    assert {line["a"] for line in found["ratios"]} == {"quick"}
    assert steps["optimizer_steps"]["ratio"] == 0.5 and steps["sampled_tokens"]["ratio"] == 0.5
    head, _, quick, slow = reach_rows(found)
    assert quick[:4] == ["quick", "100%", "10 [10, 10]", "0.50 [0.50, 0.50]"]
    assert slow[:4] == ["slow", "50%", "at least 20 [20, 20]", "-"] and len(slow) == len(head)
    with pytest.raises(ConfigError, match=r"benchmark.reach.metric: .*'scor'.*mean 'score'"):
        reach_summary(curves, metric="scor", score=0.8, subject="slow")


def test_a_band_is_the_interquartile_mean_of_whole_curves():
    values = np.asarray([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [99.0, 1.0]])
    middle, low, high = band(values, resamples=200)
    assert middle.tolist() == [1.5, 1.0] and low[1] == high[1] == 1.0
    assert 0 <= low[0] < 1.5 < high[0] <= 99
    one = band(values[:1], resamples=20)
    assert [part.tolist() for part in one] == [[0.0, 1.0]] * 3


def test_seeds_that_looked_at_other_steps_are_interpolated():
    of = {"a": [curve(0.0, 1.0, 2.0), curve(0.0, 2.0, every=20)], "base": [[], []]}
    found = bands(of, resamples=20)["score"]
    assert found.keys() == {"a"}
    assert found["a"].steps.tolist() == [0, 10, 20]
    assert found["a"].middle.tolist() == [0.0, 1.0, 2.0]


def test_costs_are_counted_from_the_last_look_before():
    looks = [{"sampled_tokens": 1, "optimizer_steps": 0, "score": 0.1}, *curve(0.2, 0.3, 0.9)[1:]]
    counted = since(looks, 15)
    assert [row["optimizer_steps"] for row in counted] == [0, 10]
    assert [row["sampled_tokens"] for row in counted] == [0, 5]
    assert [row["score"] for row in counted] == [0.3, 0.9], "a score is no cost"
    assert since(curve(0.2, 0.3), 0) == curve(0.2, 0.3)
    with pytest.raises(ValueError, match="no look at or before 5"):
        since(curve(0.1, 0.2)[1:], 5)
    with pytest.raises(ValueError, match="no look after 10"):
        since(curve(0.1, 0.2), 10)
