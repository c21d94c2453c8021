"""The table of variants: rows that take ppo's settings, starts, and what is refused."""

import json

import pytest

from mht.config import load_config
from mht.config.variants import loops_of
from mht.core.component import build
from mht.core.errors import ConfigError
from mht.core.plain import read_yaml


@pytest.fixture
def load():
    """The repository's settings with changes in baselines."""

    def loaded(rows, **sections):
        settings = read_yaml("params.yaml")
        settings["baselines"] |= rows
        for name, changes in sections.items():
            settings[name] |= changes
        return build(type(load_config()), settings)

    return loaded


def test_a_row_like_ppo_is_ppo_but_for_what_it_says(load):
    row = {"start": "sft", "like": "ppo", "lam": 0.5, "kl_control": {"type": "adaptive"}}
    config = load({"other": row}, ppo={"gamma": 0.75})
    own, ppo = config.baselines["other"], config.ppo
    told = own.model_dump()
    differ = {key for key, value in ppo.model_dump().items() if told[key] != value}
    assert differ == {"lam", "kl_control"}
    assert own.lam == 0.5 and own.gamma == 0.75


def test_the_order_and_the_steps_of_variants(load):
    config = load({"longer": {"start": "hybrid", "like": "ppo", "cycles": 7}})
    assert list(config.variants) == ["base", "sft_only", "ppo_only", "hybrid", "longer"]
    assert list(config.optimizer_steps.values()) == [0, 272, 272, 272, 272 + 56]
    assert [v.has_ppo for v in config.variants.values()] == [False, False, True, True, True]


def test_a_repeated_row_is_checked_once(load):
    rows = {"colder": {"start": "sft", "like": "ppo", "temperature": 0.25}}
    assert loops_of(load(rows)).keys() == {
        "ppo", "baselines.sft_only", "baselines.ppo_only", "baselines.colder",
    }  # fmt: skip


def test_a_file_of_a_variant_holds_what_decides_its_training(load):
    config = load({})
    plain = config.variants["hybrid"].as_plain()
    assert plain["settings"] == json.loads(json.dumps(config.ppo.model_dump(mode="json")))
    assert (plain["start"], plain["optimizer_steps"]) == ("sft", 272)
    assert config.variants["base"].as_plain()["settings"] is None


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ({"x": {"start": "sftt", "like": "ppo"}}, "baselines.x.start: no such model 'sftt' (did"),
        ({"x": {"like": "ppo"}}, "baselines.x.start: is required"),
        ({"x": {"start": "x", "like": "ppo"}}, "baselines.x.start: x starts from x itself"),
        ({"sft": {"start": "base", "like": "ppo"}}, "baselines.sft: models/sft is another stage's"),
        ({"x": {"start": "sft", "like": "ppo", "lamm": 1.0}}, "baselines.x.lamm: no such option"),
        ({"x": {"start": "sft", "like": "sft"}}, "baselines.x.cycles: is required"),
        ({"../x": {"start": "sft", "like": "ppo"}}, "a name is made of letters"),
    ],
)
def test_a_row_that_cannot_be_is_refused(load, rows, problem):
    with pytest.raises(ConfigError) as caught:
        load(rows)
    assert any(problem in line for line in caught.value.problems), caught.value.problems


def test_a_circle_of_starts_is_refused(load):
    rows = {"a": {"start": "b", "like": "ppo"}, "b": {"start": "a", "like": "ppo"}}
    with pytest.raises(ConfigError, match="starts from a itself"):
        load(rows)


def test_a_mistake_in_ppo_is_told_once(load):
    with pytest.raises(ConfigError) as caught:
        load({}, ppo={"lam": 2.0})
    assert len(caught.value.problems) == 1 and caught.value.problems[0].startswith("ppo.lam")


def test_the_benchmark_names_variants(load):
    with pytest.raises(ConfigError) as caught:
        load({}, benchmark={"baseline": "sft_onyl"})
    (problem,) = caught.value.problems
    assert problem.startswith(
        "benchmark.baseline: no such variant 'sft_onyl' (did you mean 'sft_only'"
    )
