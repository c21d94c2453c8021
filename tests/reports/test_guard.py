"""The guard against gaming: hand-worked changes, what breaks a bound, and what the report says."""

from __future__ import annotations

import numpy as np
import pytest

from mht.core.errors import ConfigError
from mht.data.text.sample import Sample
from mht.evaluation.statistics import Interval
from mht.evaluation.summary import Evaluated
from mht.evaluation.variety import repetition
from mht.reports.conclusion import OFF, guard_json, guard_rows, sentences
from mht.reports.guard import Bounds, check_judges, examine
from mht.reports.measured import Measured, difference, level, measure, relative_change

BOUNDS = Bounds(["vader"], 0.05, 0.15, 0.10, 0.05, 0.02, 4.0)
FEW = {"resamples": 300, "seed": 0}
PROMPTS = 40
NOISE = np.random.default_rng(0).normal(0, 0.05, PROMPTS)


def of_means(own: float, baseline: float, *, seeds: int = 1, name: str = "hybrid") -> Measured:
    """Values around two means, with the same noise for each prompt."""
    spread = NOISE - NOISE.mean()
    arrays = {
        which: (mean * (1 + np.roll(spread, shift)))[None, None].repeat(seeds, axis=1)
        for which, mean, shift in ((name, own, 0), ("sft_only", baseline, 1))
    }
    return Measured(arrays, "mean", {})


def measured(name: str = "hybrid", seeds: int = 1, **changed: tuple[float, float]):
    """A sound gain, but for what is changed."""
    pairs = {
        "reward": (0.8, 0.5),
        "vader": (0.5, 0.2),
        "response_length": (13.0, 13.0),
        "distinct_2": (0.9, 0.9),
        "repetition": (0.01, 0.01),
        "perplexity_human": (50.0, 50.0),
        "kl_nats": (3.0, 2.0),
        **changed,
    }
    return {metric: of_means(*pair, seeds=seeds, name=name) for metric, pair in pairs.items()}


def found(name: str = "hybrid", bounds: Bounds = BOUNDS, **changed: tuple[float, float]):
    """The guard's finding."""
    finding = examine(measured(name, **changed), name, "sft_only", bounds, **FEW)
    assert finding is not None
    return finding


def test_repetition_by_hand():
    words = "a b c d a b c d"  # 5 runs of four, of which a b c d comes twice
    assert repetition([words, "a b c d", "a b", ""]) == [pytest.approx(1 / 5), 0.0, 0.0, 0.0]
    assert repetition(["No! no, NO no no"], 1) == [pytest.approx(4 / 5)], "words, whatever case"
    assert repetition(["x " * 20]) == [pytest.approx(16 / 17)]


def test_a_relative_change_by_hand():
    doubled = Measured({"a": np.full((1, 1, 4), 3.0), "b": np.full((1, 1, 4), 1.5)}, "mean", {})
    assert relative_change(doubled, "a", "b", **FEW) == Interval(1.0, 1.0, 1.0)
    nothing = Measured({"a": np.ones((1, 1, 4)), "b": np.zeros((1, 1, 4))}, "mean", {})
    assert relative_change(nothing, "a", "b", **FEW) is None
    nats = np.array([[[2.0, 4.0]], [[1.0, 2.0]]])  # e^2 over e^1
    both = Measured({"a": nats, "b": nats / [[[2.0]], [[1.0]]]}, "perplexity", {})
    assert relative_change(both, "a", "b", **FEW).mean == pytest.approx(np.e - 1)


def test_a_sound_gain():
    finding = found()
    assert finding.verdict == "sound"
    assert not finding.broken
    assert [check.broken for check in finding.checks] == [False] * 5
    assert finding.gain.difference == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("metric", "pair", "value"),
    [
        ("response_length", (10.0, 13.0), -3 / 13),
        ("response_length", (16.0, 13.0), 3 / 13),
        ("distinct_2", (0.72, 0.9), -0.2),
        ("repetition", (0.11, 0.01), 0.1),
        ("perplexity_human", (60.0, 50.0), 0.2),
        ("kl_nats", (6.0, 2.0), 6.0),
    ],
)
def test_each_bound_can_be_broken(metric, pair, value):
    finding = found(**{metric: pair})
    assert finding.verdict == "gaming"
    (broken,) = finding.broken
    assert broken.metric == metric and broken.sure
    assert broken.value.mean == pytest.approx(value, rel=1e-6)
    bounds = BOUNDS._replace(
        max_length_change=None, max_distinct_drop=None, max_repetition_rise=None,
        max_perplexity_rise=None, max_kl_nats=None,
    )  # fmt: skip
    assert found(bounds=bounds, **{metric: pair}).verdict == "sound"


def test_what_gets_better_breaks_nothing():
    better = found(distinct_2=(0.99, 0.7), perplexity_human=(30.0, 50.0), repetition=(0.0, 0.3))
    assert better.verdict == "sound"


def test_a_judge_that_does_not_rise_makes_it_gaming():
    finding = found(vader=(0.2, 0.2))
    assert [judge.metric for judge in finding.broken] == ["vader"]
    assert finding.verdict == "gaming"


def test_a_judge_that_says_the_same_of_everything_says_nothing():
    silent = measured()
    zeros = {name: np.zeros((1, 1, PROMPTS)) for name in ("hybrid", "sft_only")}
    silent["vader"] = Measured(zeros, "mean", {})
    finding = examine(silent, "hybrid", "sft_only", BOUNDS, **FEW)
    assert finding.judges[0].agrees is None and finding.verdict == "sound"
    said = sentences(silent, [finding], {"hybrid": 1, "sft_only": 1}, **FEW)
    assert said[1] == "VADER says the same of every response, so it confirms nothing."


def test_no_gain_is_no_gaming():
    finding = found(reward=(0.5, 0.5), response_length=(5.0, 13.0))
    assert finding.verdict == "no gain"
    assert any(check.broken for check in finding.checks)


def test_an_interval_that_reaches_the_bound_is_not_sure():
    (check,) = [c for c in found(response_length=(14.96, 13.0)).checks if c.broken]
    assert check.metric == "response_length" and not check.sure
    assert check.value.low < 0.15 < check.value.mean


def test_the_kl_is_judged_from_where_training_began():
    far = {"kl_nats": (10.0, 8.0)}
    (check,) = [c for c in found(**far).checks if c.unit == "nats"]
    assert check.broken is None and "sft_only is 8.0 nats away too" in check.note
    values = measured(**far)
    values["kl_to_sft_nats"] = Measured({"hybrid": np.full((1, 1, PROMPTS), 5.0)}, "mean", {})
    (check,) = [
        c for c in examine(values, "hybrid", "sft_only", BOUNDS, **FEW).checks if c.unit == "nats"
    ]
    assert check.metric == "kl_to_sft_nats" and check.broken and check.value.mean == 5.0
    other = measured("slow_ppo", **far)
    options = {**FEW, "from_base": ["slow_ppo"]}
    (check,) = [
        c
        for c in examine(other, "slow_ppo", "sft_only", BOUNDS, **options).checks
        if c.unit == "nats"
    ]
    assert check.broken, "it began with the base model"


def test_without_a_reward_there_is_no_finding():
    values = measured()
    del values["reward"]
    assert examine(values, "hybrid", "sft_only", BOUNDS, **FEW) is None
    assert sentences(values, [], {}) == []


def test_unknown_judges_are_named():
    with pytest.raises(ConfigError) as error:
        check_judges(BOUNDS._replace(judges=["vader", "vadr"]), measured())
    (problem,) = error.value.problems
    assert problem.startswith("benchmark.guard.judges[1]: no such metric 'vadr' (did you mean 'v")


def test_the_sentences_name_winner_judges_and_gaming():
    values = measured(response_length=(8.0, 13.0))
    finding = examine(values, "hybrid", "sft_only", BOUNDS, **FEW)
    who, judges, cost = sentences(values, [finding], {"hybrid": 9, "sft_only": 9}, **FEW)
    assert who.startswith("On the trained reward hybrid is highest with 0.800 [")
    assert "above sft_only with 0.500 (+0.300 [" in who
    assert judges.startswith("VADER, which nobody was trained on, agrees on hybrid (+0.300 [")
    assert cost.startswith("hybrid wins by gaming: length -38.5% [") and "(bound ±15%)" in cost
    assert cost.endswith("(all at 9 optimiser steps).")
    cost = sentences(values, [finding], {"hybrid": 9, "sft_only": 20}, **FEW)[2]
    assert "unequal budgets of 9 (hybrid) and 20 (sft_only) optimiser steps" in cost


def test_the_guard_off_shows_and_judges_nothing():
    finding = found(bounds=OFF, response_length=(5.0, 13.0))
    assert finding.verdict == "sound" and not finding.judges
    rows = {row["label"]: row for row in guard_rows([finding])}
    assert rows["Verdict"]["cells"][0]["text"] == "gain, not judged"
    assert rows["Length"]["cells"][0]["state"] == "" and rows["Length"]["bound"] == "-"
    values = measured()
    said = sentences(values, [finding], {"hybrid": 9, "sft_only": 9}, **FEW)
    assert "not judged against bounds (benchmark.guard: null)" in said[2]


def test_findings_as_json():
    (made,) = guard_json([found(response_length=(8.0, 13.0))])
    assert made["verdict"] == "gaming" and made["gain"]["difference"] == 0.3
    length = made["checks"][0]
    assert length["metric"] == "response_length" and length["broken"] is True
    assert length["value"]["mean"] == pytest.approx(-5 / 13, rel=1e-5)


def test_differences_are_tested_over_seeds_and_prompts():
    few = of_means(0.52, 0.5, seeds=3)
    assert difference(few, "hybrid", "sft_only", **FEW).p < 0.05
    one = difference(of_means(0.52, 0.5), "hybrid", "sft_only", **FEW)
    assert one.difference == pytest.approx(0.02)


def evaluated(responses: list[str], scores: list[float]) -> Evaluated:
    """A run of two columns, of which one lacks a value."""
    samples = [Sample("p", response) for response in responses]
    per_sample = {"reward": scores, "bleu": [float("nan"), 1.0]}
    return Evaluated(["a", "b"], samples, per_sample)


def test_measure_stacks_seeds_and_adds_repetition():
    runs = {
        "hybrid": [evaluated(["a a a a a", "b"], [1.0, 0.0]), evaluated(["c", "d"], [0.5, 0.0])],
        "sft_only": [evaluated(["c", "d"], [0.0, 0.0])] * 2,
    }
    made = measure(runs, {"hybrid": {"reward": {"mean": 0.4, "low": 0.3, "high": 0.5}}})
    assert made["reward"].of["hybrid"].shape == (1, 2, 2)
    assert made["bleu"].of["hybrid"].shape == (1, 2, 1), "a prompt without a value is left out"
    assert made["repetition"].of["hybrid"][0].tolist() == [[0.5, 0.0], [0.0, 0.0]]
    assert level(made["reward"], "hybrid", **FEW) == Interval(0.4, 0.3, 0.5), "as the tables say"
    assert level(made["reward"], "sft_only", **FEW).mean == 0.0
