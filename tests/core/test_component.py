"""The mechanism that turns plain data into components: names, plug-ins, errors with paths."""

import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from mht.core.component import Component, Registry, build, did_you_mean, registry
from mht.core.errors import ConfigError
from mht.rewards import Reward, make_reward
from tests.support.plugins import install


def problems(data, path="ppo.reward"):
    with pytest.raises(ConfigError) as caught:
        build(Reward, data, path=path)
    return caught.value.problems


def test_did_you_mean_names_the_closest_or_nothing():
    assert did_you_mean("mni", ["min", "max"]) == " (did you mean 'min'?)"
    assert did_you_mean("perplexty", ["perplexity", "bleu"]) == " (did you mean 'perplexity'?)"
    assert did_you_mean("zzz", ["min", "max"]) == ""


def test_a_taken_name_is_refused_and_the_same_class_may_register_twice():
    registry = Registry("thing")

    class One(Component):
        pass

    class Two(Component):
        pass

    registry.register("a", "b")(One)
    registry.register("a")(One)
    with pytest.raises(ValueError, match=r"thing 'b' is already registered by .*One"):
        registry.register("b")(Two)
    assert registry.names() == ["a", "b"] and registry.get("b") is One


def test_built_in_members_load_when_the_first_name_is_asked_for():
    code = """
import sys
from mht.core.component import registry
rewards = registry("reward")
print([m for m in sys.modules if m.startswith("mht.rewards")])
rewards.get("bleu")
print("mht.rewards.text.overlap" in sys.modules, "mht.tasks.randomwalks.source" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True False"]


def test_a_built_in_name_is_refused_where_the_class_is_defined():
    with pytest.raises(ValueError, match=r"reward 'bleu' is already registered by mht\."):
        registry("reward").register("bleu")(type("Mine", (Component,), {}))


def test_an_unknown_option_is_reported_at_its_full_path_with_what_was_meant():
    found = problems(
        {
            "type": "weighted_sum",
            "components": {"length": {"type": "length_window", "mni": 3, "min": 1, "max": 5}},
        }
    )
    assert found == [
        "ppo.reward.components.length.mni: no such option 'mni' (did you mean 'min'?). "
        "Available: cache, invert, max, min, on_error, postprocess, scale, segmenter, text, token, "
        "type, weight"
    ]


def nested(inner, depth):
    """``inner`` under ``depth`` composites, mappings and lists by turns; and its path."""
    path = ""
    for level in range(depth):
        if level % 2:
            inner, path = {"type": "min", "components": {"part": inner}}, f".components.part{path}"
        else:
            inner = {"type": "product", "components": [{"type": "bleu"}, inner]}
            path = f".components[1]{path}"
    return inner, f"ppo.reward{path}"


@pytest.mark.parametrize("depth", range(7))
def test_paths_are_right_at_any_depth(depth):
    data, path = nested({"type": "clipp"}, depth)
    assert problems(data)[0].startswith(f"{path}.type: unknown reward 'clipp'")
    data, path = nested({"type": "length_window", "min": 1, "max": 4, "mni": 1}, depth)
    assert problems(data)[0].startswith(f"{path}.mni: no such option 'mni'")
    data, path = nested(
        {"type": "bleu", "postprocess": [{"type": "whiten"}, {"type": "clip"}]}, depth
    )
    assert problems(data) == [f"{path}.postprocess[1]: clip needs a min, a max or both"]


def test_every_mistake_is_reported_at_once():
    found = problems(
        {
            "type": "weighted_sum",
            "components": {
                "quality": {"type": "rogue_l"},
                "length": {"type": "length_window", "mni": 3, "max": "a"},
                "bad.name": {"type": "exact_match"},
                "all": {"type": "min", "components": [{"type": "bleu", "tokenize": "x"}, 3, {}]},
            },
            "postprocess": [{"type": "clip", "min": 2.0, "max": 1.0}, {"type": "clp"}],
        }
    )
    starts = [
        "ppo.reward.postprocess[0]: min must be below max, got min=2.0 max=1.0",
        "ppo.reward.postprocess[1].type: unknown postprocess 'clp' (did you mean 'clip'?). Av",
        "ppo.reward.components.bad.name: 'bad.name' can't name a component",
        "ppo.reward.components.quality.type: unknown reward 'rogue_l' (did you mean 'rouge_l'?)",
        "ppo.reward.components.length.min: is required and missing",
        "ppo.reward.components.length.max: should be a valid integer, got 'a'",
        "ppo.reward.components.length.mni: no such option 'mni' (did you mean 'min'?)",
        "ppo.reward.components.all.components[0].tokenize: should be 'auto', '13a', ",
        "ppo.reward.components.all.components[1]: a reward is a mapping with a 'type', got 3",
        "ppo.reward.components.all.components[2].type: a reward needs a type, it is missing",
    ]
    assert len(found) == len(starts)
    for start in starts:
        assert sum(line.startswith(start) for line in found) == 1, (start, found)
    assert all("\n" not in line for line in found)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("0.5", "should be a valid number, got '0.5'"),
        (True, "should be a valid number, got True"),
        (float("nan"), "should be a finite number, got nan"),
        (None, "should be a valid number, got None"),
    ],
)
def test_wrong_types_are_not_converted(value, says):
    assert problems({"type": "bleu", "weight": value}) == [f"ppo.reward.weight: {says}"]


def test_numbers_come_out_of_yaml_as_numbers():
    text = "{type: exact_match, weight: 1e-5, lowercase: yes}"
    with pytest.raises(ConfigError, match="reward.lowercase: should be a valid boolean, got 'yes'"):
        make_reward(YAML(typ="safe").load(text))  # YAML 1.2: yes is a word
    reward = make_reward(YAML(typ="safe").load(text.replace("yes", "true")))
    assert reward.weight == 1e-5


def plug_in(monkeypatch, folder, name, body, value="Shout"):
    """An installed distribution whose entry point adds the reward ``name``."""
    module = f"acme_{folder.name.replace('-', '_')}"
    monkeypatch.syspath_prepend(str(install(folder, module, body, {"reward": {name: value}})))
    return module


SHOUT = """
from mht.rewards import Reward
class Shout(Reward):
    mark: str = "!"
    def score(self, samples):
        return [float(s.response.count(self.mark)) for s in samples]
"""


def test_an_installed_package_adds_a_reward_and_is_imported_only_when_named(monkeypatch, tmp_path):
    module = plug_in(monkeypatch, tmp_path, "shout", SHOUT)
    make_reward({"type": "exact_match"})
    assert module not in sys.modules
    assert "shout" in Reward.registry.names()
    reward = make_reward({"type": "min", "components": [{"type": "shout", "mark": "?"}]})
    assert reward(["a??", "b!"]) == [2.0, 0.0]
    assert list(reward.children()) == ["shout"]
    found = problems({"type": "shout", "marc": "?"})
    assert found[0].startswith("ppo.reward.marc: no such option 'marc' (did you mean 'mark'?)")


def test_a_plug_in_may_not_take_a_built_in_name(monkeypatch, tmp_path):
    plug_in(monkeypatch, tmp_path, "bleu", SHOUT)
    assert (
        "ppo.reward.type: reward 'bleu' is claimed more than once" in problems({"type": "bleu"})[0]
    )


def test_a_plug_in_that_does_not_load_says_so(monkeypatch, tmp_path):
    plug_in(monkeypatch, tmp_path, "broken", "", value="acme_absent:Shout")
    found = problems({"type": "broken"})
    assert found == [
        "ppo.reward.type: reward 'broken' comes from plug-in acme_absent:Shout, which does not "
        "load: No module named 'acme_absent'"
    ]


def test_members_that_fail_to_load_fail_at_every_look_up(monkeypatch, tmp_path):
    (tmp_path / "acme_broken_home.py").write_text("raise RuntimeError('it does not load')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    members = Registry("toy", ["acme_broken_home"])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="it does not load"):
            members.get("any")
