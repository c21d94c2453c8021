"""Composition and postprocess: hand-worked numbers, names, order, state."""

import json
import math
import random
from statistics import fmean, pstdev

import pytest

from mht.core.errors import ConfigError
from mht.data.text.sample import Sample
from mht.rewards import RewardError, make_reward

BATCH = [Sample("", response, "a") for response in ("a", "b", "a b", "")]
MATCH = {"type": "exact_match"}  # 1 0 0 0 on BATCH
SHARE = {"type": "jaccard"}  # 1 0 .5 0 on BATCH


def scores(spec):
    return make_reward(spec).evaluate(BATCH).score


def test_weighted_sum_divides_by_the_sum_of_the_weights():
    spec = {"type": "weighted_sum", "components": [{**MATCH, "weight": 3}, {**SHARE, "weight": 1}]}
    assert scores(spec) == [1.0, 0.0, 0.125, 0.0]


def test_product_min_and_gate():
    half = {**SHARE, "postprocess": [{"type": "scale", "mul": 0.5, "add": 0.5}]}  # 1 .5 .75 .5
    assert scores({"type": "product", "components": [half, SHARE]}) == [1, 0, 0.375, 0]
    assert scores({"type": "min", "components": [half, SHARE]}) == [1, 0, 0.5, 0]
    gate = {"type": "gate", "reward": half, "when": SHARE, "threshold": 0.5, "otherwise": -1}
    assert scores(gate) == [1, -1, 0.75, -1]


def test_every_node_is_named_raw_and_after_its_postprocess():
    spec = {
        "type": "weighted_sum",
        "components": {
            "fit": {
                **SHARE,
                "postprocess": [{"type": "scale", "add": 1}, {"type": "clip", "max": 1.2}],
            },
            "rest": {"type": "min", "components": [MATCH, MATCH, SHARE]},
        },
        "postprocess": [{"type": "scale", "mul": 2}],
    }
    found = make_reward(spec).evaluate(BATCH, "ppo/reward").components
    assert found == {
        "ppo/reward": [1.1, 0.5, 0.6, 0.5],
        "ppo/reward.post": [2.2, 1.0, 1.2, 1.0],
        "ppo/reward.fit": [1, 0, 0.5, 0],
        "ppo/reward.fit.post": [1.2, 1, 1.2, 1],
        "ppo/reward.rest": [1, 0, 0, 0],
        "ppo/reward.rest.exact_match": [1, 0, 0, 0],
        "ppo/reward.rest.exact_match_2": [1, 0, 0, 0],
        "ppo/reward.rest.jaccard": [1, 0, 0.5, 0],
    }


@pytest.mark.parametrize("weights", [[0, 0], [1, -1], [-2, 1]])
def test_weights_that_do_not_add_up_are_refused(weights):
    parts = [{**MATCH, "weight": w} for w in weights]
    with pytest.raises(ConfigError, match="the weights must add up to more than 0, got"):
        make_reward({"type": "weighted_sum", "components": parts})


def test_weights_without_effect_are_refused():
    with pytest.raises(ConfigError, match="a weight has no effect here: remove it from b"):
        make_reward({"type": "min", "components": {"a": MATCH, "b": {**MATCH, "weight": 2}}})


@pytest.mark.parametrize("empty", [[], {}, None, "bleu", 3])
def test_components_are_a_filled_list_or_mapping(empty):
    with pytest.raises(ConfigError, match="reward.components: "):
        make_reward({"type": "product", "components": empty})


def test_a_weight_of_zero_scores_without_counting():
    spec = {"type": "weighted_sum", "components": {"a": MATCH, "seen": {**SHARE, "weight": 0}}}
    scored = make_reward(spec).evaluate(BATCH)
    assert scored.score == [1, 0, 0, 0] and scored.components["reward.seen"] == [1, 0, 0.5, 0]


def step(spec):
    return make_reward({**MATCH, "postprocess": [spec]}).postprocess[0]


def test_clip_and_scale():
    assert step({"type": "clip", "min": 0, "max": 1}).apply([-2, 0.5, 3], True) == [0, 0.5, 1]
    assert step({"type": "clip", "min": 0}).apply([-2, 3], True) == [0, 3]
    assert step({"type": "scale", "mul": -2, "add": 1}).apply([0, 3], True) == [1, -5]
    with pytest.raises(ConfigError, match="min must be below max, got min=1.0 max=1.0"):
        step({"type": "clip", "min": 1, "max": 1})


def test_whiten_gives_mean_0_and_std_1_and_a_constant_zeros():
    white = step({"type": "whiten"}).apply([1.0, 2.0, 6.0], True)
    assert fmean(white) == pytest.approx(0, abs=1e-9) and pstdev(white) == pytest.approx(1)
    assert step({"type": "whiten"}).apply([0.1] * 3, True) == pytest.approx([0] * 3, abs=1e-6)


def test_ema_normalize_is_the_corrected_moving_average_of_the_moments():
    decay, batches = 0.9, [[1.0, 3.0], [0.0, 2.0, 4.0], [10.0]]
    ema = step({"type": "ema_normalize", "decay": decay, "eps": 1e-12})
    first = second = 0.0
    for t, batch in enumerate(batches, 1):
        first = decay * first + (1 - decay) * fmean(batch)
        second = decay * second + (1 - decay) * fmean(x * x for x in batch)
        mean = first / (1 - decay**t)
        std = math.sqrt(second / (1 - decay**t) - mean**2)
        assert ema.apply(batch, True) == pytest.approx([(x - mean) / std for x in batch])


def test_ema_normalize_does_not_depend_on_the_order_and_waits_for_a_batch():
    values = [random.Random(0).gauss(0, 1) for _ in range(50)]
    a, b = (step({"type": "ema_normalize"}) for _ in range(2))
    assert a.apply(values, False) == values
    for _ in range(3):
        forward, backward = a.apply(values, True), b.apply(values[::-1], True)
        assert forward == backward[::-1] and a.get_state() == b.get_state()
    assert step({"type": "ema_normalize"}).apply([2.0] * 4, True) == [0.0] * 4


def test_evaluation_leaves_the_state_alone():
    reward = make_reward({**SHARE, "postprocess": [{"type": "ema_normalize"}]})
    reward.evaluate(BATCH)
    before = reward.state_dict()
    reward.evaluate(BATCH[:1], update=False)
    assert reward.state_dict() == before
    reward.evaluate(BATCH[:1])
    assert reward.state_dict() != before


TREE = {
    "type": "weighted_sum",
    "components": {
        "a": {**SHARE, "postprocess": [{"type": "clip", "min": 0}, {"type": "ema_normalize"}]}
    },
    "postprocess": [{"type": "ema_normalize"}],
}


def test_the_state_goes_through_json_and_the_run_continues_exactly():
    whole, begun, resumed = (make_reward(TREE) for _ in range(3))
    for _ in range(2):
        whole.evaluate(BATCH)
        begun.evaluate(BATCH)
    resumed.load_state_dict(json.loads(json.dumps(begun.state_dict())))
    assert set(resumed.state_dict()) == {"postprocess[0]", "a.postprocess[1]"}
    assert resumed.evaluate(BATCH[1:]) == whole.evaluate(BATCH[1:])


def test_the_state_of_another_tree_is_refused_with_the_difference():
    with pytest.raises(RewardError, match=r"missing \['a.postprocess\[1\]'\], unknown \['b'\]"):
        make_reward(TREE).load_state_dict({"postprocess[0]": {}, "b": {}})
    with pytest.raises(RewardError, match="has no number 'mean': got None"):
        make_reward(TREE).load_state_dict({"postprocess[0]": {}, "a.postprocess[1]": {}})


def test_two_rewards_of_one_spec_do_not_share_state():
    a, b = make_reward(TREE), make_reward(TREE)
    a.evaluate(BATCH)
    assert b.state_dict() != a.state_dict()
