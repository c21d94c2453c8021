"""What every reward gets from the base: a common range, failures, texts scored once, observe."""

import math
import warnings
from typing import ClassVar

import pytest

from mht.core.errors import ConfigError, MissingPackage, ModelError, UserError
from mht.data.text.sample import Sample
from mht.rewards import Reward, RewardError, make_reward
from mht.rewards.base import ANY, UNIT, TextReward
from mht.rewards.scoring import mirror, unit
from mht.training.figures import text_stats

INF = math.inf


class Number(TextReward):
    """The number that the text is; counts what it is asked for."""

    ends: tuple[float, float] = ANY
    asked: list = []  # noqa: RUF012  (a field: each instance has its own)
    observed: list = []  # noqa: RUF012

    def bounds(self):
        """As it was told."""
        return self.ends

    def score(self, samples):
        """Each text as a number; "!..." raises."""
        self.asked.append([s.response for s in samples])
        return [self._one(s.response) for s in samples]

    def _one(self, text):
        if text.startswith("!"):
            errors = {"!user": UserError, "!model": ModelError, "!bug": ZeroDivisionError}
            raise errors.get(text, ValueError)(text)
        return float(text)

    def observe(self, samples, scores):
        """Remember the call."""
        self.observed.append((len(samples), list(scores)))


class Whole(Number):
    """The same, but the batch has a say."""

    def reads(self, sample):
        """None."""
        return


def samples(*responses):
    return [Sample("", str(response)) for response in responses]


def number(low, high, **options):
    return Number.model_construct(ends=(low, high), asked=[], observed=[], **options)


def post(reward, *responses):
    scored = reward.evaluate(samples(*responses))
    return scored.score


@pytest.mark.parametrize(
    ("ends", "value", "scaled", "inverted", "both"),
    [
        ((1.0, 5.0), 2.0, 0.25, 4.0, 0.75),
        ((0.0, 1.0), 0.25, 0.25, 0.75, 0.75),
        ((-1.0, 1.0), -1.0, 0.0, 1.0, 1.0),
        ((0.0, INF), 3.0, 0.75, -3.0, 0.25),
        ((1.0, INF), 1.0, 0.0, -1.0, 1.0),
        ((-INF, 0.0), -3.0, 0.25, 3.0, 0.75),
        ((-INF, INF), math.log(3), 0.75, -math.log(3), 0.25),
        ((-INF, INF), -math.log(3), 0.25, math.log(3), 0.75),
    ],
)
def test_scale_and_invert(ends, value, scaled, inverted, both):
    assert post(number(*ends, scale=True), value) == pytest.approx([scaled])
    assert post(number(*ends, invert=True), value) == pytest.approx([inverted])
    assert post(number(*ends, scale=True, invert=True), value) == pytest.approx([both])
    assert post(number(*ends), value) == [value]


@pytest.mark.parametrize("ends", [(1.0, 5.0), (0.0, INF), (-INF, 2.0), (-INF, INF)])
def test_scaling_keeps_the_order_and_reaches_for_both_ends(ends):
    low, high = (end if math.isfinite(end) else math.copysign(1e6, end) for end in ends)
    values = [low + (high - low) * i / 50 for i in range(51)]
    found = [unit(value, *ends) for value in values]
    assert found == sorted(found)
    assert found[0] == pytest.approx(0, abs=1e-5) and found[-1] == pytest.approx(1, abs=1e-5)
    assert all(0 <= f <= 1 for f in found)


def test_values_beyond_any_exponent_are_scaled_and_a_point_is_a_range():
    for value in (1e308, -1e308):
        for ends in (ANY, (0.0, INF), (-INF, 0.0), UNIT):
            assert 0 <= unit(value, *ends) <= 1
    assert unit(2.0, 2.0, 2.0) == 0.0
    constant = {"type": "exact_match", "postprocess": [{"type": "scale", "mul": 0, "add": 3}]}
    assert make_reward({"type": "min", "components": [constant], "scale": True})("a", "a") == 0.0


@pytest.mark.parametrize("ends", [(1.0, 5.0), UNIT, (0.0, INF), (-INF, INF)])
def test_turning_round_twice_is_nothing(ends):
    assert mirror(mirror(2.5, *ends), *ends) == pytest.approx(2.5)


def test_the_raw_scores_stay_under_the_name():
    scored = number(1.0, 5.0, scale=True).evaluate(samples(2, 5), "r")
    assert scored.components == {"r": [2.0, 5.0], "r.post": [0.25, 1.0]}
    assert set(number(*UNIT, scale=True).evaluate(samples(0), "r").components) == {"r"}


def test_postprocess_comes_after_scale_and_invert():
    step = make_reward({"type": "bleu", "postprocess": [{"type": "scale", "mul": 10}]}).postprocess
    assert post(number(1.0, 5.0, scale=True, invert=True, postprocess=step), 2) == [7.5]


def test_the_outcome_of_one_node():
    assert number(1.0, 5.0, scale=True).outcome() == (0, 1)
    assert number(0.0, INF, invert=True).outcome() == (-INF, 0)
    assert number(0.0, INF, scale=True, invert=True).outcome() == (0, 1)
    assert number(0.0, INF, on_error=-1.0).outcome() == (-1, INF)
    for steps, expected in {
        (("clip", "min", 2.0),): (2, 5),
        (("clip", "max", 0.5),): (0.5, 0.5),
        (("scale", "mul", -2.0),): (-10, -2),
        (("scale", "mul", 0.0),): (0, 0),
        (("whiten", "eps", 1e-8),): ANY,
        (("whiten", "eps", 1e-8), ("clip", "max", 1.0)): (-INF, 1),
    }.items():
        spec = [{"type": kind, key: value} for kind, key, value in steps]
        done = make_reward({"type": "bleu", "postprocess": spec}).postprocess
        assert number(1.0, 5.0, postprocess=done).outcome() == expected


def parts(*ends, **weights):
    found = [number(*pair) for pair in ends]
    for part, weight in zip(found, weights.get("weights", []), strict=False):
        object.__setattr__(part, "weight", weight)
    return found


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"type": "weighted_sum", "components": parts(UNIT, (2.0, 4.0))}, (1, 2.5)),
        ({"type": "weighted_sum", "components": parts(UNIT, UNIT, weights=[3, -1])}, (-0.5, 1.5)),
        ({"type": "weighted_sum", "components": parts(UNIT, (0.0, INF))}, (0, INF)),
        ({"type": "weighted_sum", "components": parts(UNIT, (0.0, INF), weights=[1, 0])}, UNIT),
        ({"type": "product", "components": parts((-2.0, 3.0), (-1.0, 5.0))}, (-10, 15)),
        ({"type": "product", "components": parts(UNIT, (0.0, INF))}, (0, INF)),
        ({"type": "min", "components": parts((0.0, 9.0), (2.0, 4.0))}, (0, 4)),
        ({"type": "weighted_sum", "components": parts((2.0, 4.0)), "scale": True}, UNIT),
    ],
)
def test_the_outcome_of_composites(spec, expected):
    assert make_reward(spec).outcome() == pytest.approx(expected)


def test_the_outcome_of_a_gate_holds_what_is_paid_otherwise():
    paid, when = number(0.0, 1.0), number(*ANY)
    spec = {"type": "gate", "reward": paid, "when": when, "threshold": 0, "otherwise": -2.0}
    assert make_reward(spec).outcome() == (-2, 1)


# Failures.


def test_without_on_error_the_first_failure_stops():
    for text, kind in {"!user": UserError, "!bug": ZeroDivisionError, "nan": RewardError}.items():
        with pytest.raises(kind):
            number(*ANY).evaluate(samples("1", text))


@pytest.mark.parametrize("bad", ["!user", "!bug", "nan", "inf", "?"])
def test_only_the_text_that_fails_gets_on_error(bad):
    reward = number(0.0, 10.0, on_error=-1.0)
    with pytest.warns(UserWarning, match=r"^1 of 3 responses got -1.0 \(on_error\), since scoring"):
        scored = reward.evaluate(samples("1", bad, "3"), "r")
    assert scored.score == [1, -1, 3]
    assert scored.components == {"r": [1, -1, 3], "r.failed": [0, 1, 0]}
    assert reward.asked == [["1", bad, "3"], ["1"], [bad], ["3"]]  # each alone tells which it was


def test_what_on_error_gives_is_final_whatever_scale_and_invert_are():
    reward = number(0.0, 10.0, on_error=0.0, scale=True, invert=True)
    with pytest.warns(UserWarning):
        scored = reward.evaluate(samples("2", "!bug"), "r")
    assert scored.score == [0.8, 0.0]  # the inverted 0 would be the best score there is
    assert scored.components["r.post"] == [0.8, 0.0]


def test_where_the_batch_has_a_say_all_of_it_fails():
    reward = Whole.model_construct(ends=UNIT, asked=[], observed=[], on_error=0.5)
    with pytest.warns(UserWarning, match=r"^2 of 2 responses"):
        scored = reward.evaluate(samples("1", "!bug"), "r")
    assert scored.components == {"r": [0.5, 0.5], "r.failed": [1, 1]}
    assert len(reward.asked) == 1


@pytest.mark.parametrize("count", [0, 3])
def test_a_wrong_number_of_scores_is_a_failure(count):
    class Odd(TextReward):
        on_error: float = 0.25

        def score(self, samples):
            return [1.0] * count

    with pytest.warns(UserWarning, match=f"gave {count} scores for"):
        assert Odd().evaluate(samples("a", "b"), "r").score == [0.25, 0.25]


def test_a_failure_below_a_composite_counts_at_the_one_that_forgives():
    inner = {"type": "min", "components": {"n": number(*ANY)}, "on_error": 0.0}
    outer = make_reward({"type": "weighted_sum", "components": {"m": inner}})
    with pytest.warns(UserWarning, match=r"since scoring failed: reward.m \(min\): "):
        found = outer.evaluate(samples("1", "!bug")).components
    assert found["reward.m.failed"] == [1, 1] and found["reward"] == [0, 0]


@pytest.mark.parametrize(
    "error", [ModelError("none"), MissingPackage("x", "y"), ConfigError(["z"])]
)
def test_what_is_wrong_for_every_text_stops_all_the_same(error):
    class Lacking(TextReward):
        on_error: float = 0.0

        def score(self, samples):
            raise error

    with pytest.raises(type(error), match=r"^r \(Lacking\): "):
        Lacking().evaluate(samples("a"), "r")


def test_a_healthy_batch_counts_no_failure_and_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = number(*ANY, on_error=0.0).evaluate(samples("1"), "r").components
    assert found == {"r": [1.0], "r.failed": [0.0]}


@pytest.mark.parametrize("value", ["go", True, None, float("nan")])
def test_on_error_is_stop_or_a_number(value):
    with pytest.raises(ConfigError, match="^1 problem in the reward\n  reward.on_error: "):
        make_reward({"type": "bleu", "on_error": value})


def test_failures_are_logged_as_a_count_and_scores_as_means():
    tree = make_reward({"type": "min", "components": {"n": number(*ANY, on_error=0.0)}})
    batch = samples("1", "!bug", "!bug", "3")
    with pytest.warns(UserWarning):
        stats = text_stats(batch, tree.evaluate(batch))
    assert stats["reward/n"] == 1.0 and stats["reward/n.failed"] == 2


# Texts once, and observe.


def test_texts_that_read_the_same_are_scored_once():
    reward = number(*ANY)
    assert reward.evaluate(samples("2", "1", "2", "2")).score == [2, 1, 2, 2]
    assert reward.asked == [["2", "1"]]
    whole = Whole.model_construct(ends=ANY, asked=[], observed=[])
    assert whole.evaluate(samples("2", "1", "2")).score == [2, 1, 2]
    assert whole.asked == [["2", "1", "2"]]


def test_what_else_is_read_tells_texts_apart():
    batch = [Sample("1", "2"), Sample("", "2"), Sample("1", "2")]
    full = make_reward({"type": "length_window", "min": 2, "max": 3, "text": "full"})
    assert [full.reads(s) for s in batch] == [("1\n2",), ("2",), ("1\n2",)]
    match = make_reward({"type": "jaccard"})
    assert match.reads(Sample("p", "r", "t")) == ("r", "t")
    assert make_reward({"type": "diversity"}).reads(batch[0]) is None
    assert make_reward({"type": "min", "components": [full]}).reads(batch[0]) is None


def test_observe_is_called_once_a_batch_and_never_in_evaluation():
    reward = number(1.0, 5.0, scale=True, on_error=0.0)
    tree = make_reward({"type": "min", "components": [reward]})
    child = next(iter(tree.children().values()))
    tree.evaluate(samples("2", "2", "4"))
    assert child.observed == [(3, [2, 2, 4])]  # every sample, with its raw score
    tree.evaluate(samples("2"), update=False)
    assert len(child.observed) == 1
    with pytest.warns(UserWarning):
        tree.evaluate(samples("2", "!bug"))
    assert child.observed[1:] == [(2, [2, 0])]


def test_every_type_says_its_range_and_direction():
    class Low(Reward):
        score_range: ClassVar = (0.0, INF)
        better: ClassVar = "low"

        def score(self, samples):
            return [0.0] * len(samples)

    assert Low().bounds() == (0, INF) and Low().direction() == "low" and Low().models() == ()
    raw = make_reward({"type": "perplexity", "reward_mode": "raw"})
    assert raw.bounds() == (1, INF) and raw.direction() == "low" and raw.models() == ("gpt2",)
    shares = make_reward({"type": "keyword_count", "keywords": ["a"], "normalize": True})
    assert shares.bounds() == UNIT and shares.direction() == "either"
