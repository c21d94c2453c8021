"""What settings ask of models and of the machine, found before anything loads."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mht.cli.main
from mht.checks import preflight
from mht.checks.preflight import Shape, notes, problems, shape_of
from mht.config import load_config
from mht.config.optim import PACKAGES
from tests.support.pipeline import ROOT, change_yaml


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """A function: the repository's settings with changes, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def changed(changes):
        change_yaml(ROOT / "params.yaml", Path("params.yaml"), changes)
        return load_config()

    return changed


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2", "gemma2"])
def test_the_shape_of_a_folder(tiny_model_dir, kind):
    assert shape_of(str(tiny_model_dir(kind, layers=3))) == Shape(3, 256)


def test_the_shape_of_a_text_model_inside_another(tmp_path):
    inner = {"num_hidden_layers": 5, "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": inner}))
    assert shape_of(str(tmp_path)) == Shape(5, 64)


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"num_hidden_layers": "many"}'])
def test_a_config_that_says_nothing(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert shape_of(str(tmp_path)) == Shape()


def test_the_shape_of_a_hub_model_is_known_once_it_is_fetched(tiny_model_dir, settings):
    changes = {"model.name": "someone/model", "model.num_layers_unfrozen": 3}
    config = settings(changes)
    assert not list(problems(config))
    shutil.copytree(tiny_model_dir(layers=2), "models/base")
    assets = Path("data/raw/assets.json")
    assets.parent.mkdir(parents=True)
    assets.write_text(json.dumps([{"name": "another/model"}, {"name": "all-MiniLM-L6-v2"}]))
    assert not list(problems(config)), "models/base is of another model"
    assets.write_text(json.dumps([{"name": "someone/model"}, {"name": "all-MiniLM-L6-v2"}]))
    (found,) = problems(config)
    assert found.startswith("model.num_layers_unfrozen: 3 does not fit the 2 layers of 'someone/m")
    for damaged in ("", "{}", "[{}]"):
        assets.write_text(damaged)
        assert not list(problems(config))


def test_a_missing_package_is_found_by_the_check(settings, monkeypatch):
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    for kind, (_, package) in PACKAGES.items():
        (found,) = problems(settings({"sft.optimizer": {"type": kind}}))
        start = f"sft.optimizer.type: {kind} needs the package {package!r}: pip install {package}"
        assert found.startswith(start)


def test_lengths_beyond_the_context(tiny_model_dir, settings):
    """Of what is used: a baseline without PPO writes no response."""
    name = str(tiny_model_dir())
    fits = {
        "model.name": name,
        "model.num_layers_unfrozen": 2,
        "ppo.response_tokens": 255,
        "data.max_target_tokens": 254,
        "baselines.sft_only.response_tokens": 999,
    }
    assert not list(problems(settings(fits)))
    too_long = {
        "ppo.response_tokens": 256,
        "baselines.ppo_only.response_tokens": 256,
        "evaluate.decoding.response_tokens": 256,
        "data.max_target_tokens": 255,
    }
    found = sorted(problems(settings(fits | too_long)))
    assert [line.split(":")[0] for line in found] == sorted(too_long)
    assert all(": 256 leaves no room for a prompt in the 256 of " in line for line in found)


def test_the_check_says_it_all(settings):
    settings({"model.num_layers_unfrozen": 40, "evaluate.decoding.response_tokens": 9000})
    done = CliRunner().invoke(mht.cli.main.commands, ["check"])
    assert done.exit_code == 2
    head, *lines = done.output.splitlines()
    assert head == "2 problems in params.yaml"
    assert [line.split(":")[0].strip() for line in lines] == [
        "model.num_layers_unfrozen",
        "evaluate.decoding.response_tokens",
    ]


RAW = {"type": "perplexity", "reward_mode": "raw"}
LENGTH = {"type": "length_window", "min": 1, "max": 9}


def paid(reward, settings):
    """The paths of the notes on a reward."""
    found = list(notes(settings({"ppo.reward": reward})))
    assert all("set invert to true, or a negative weight" in line for line in found)
    return [line.split(": ")[0].removeprefix("ppo.reward") for line in found]


def test_a_component_that_is_paid_for_the_bad_is_noted(settings):
    def both(**options):
        parts = {"fluent": {**RAW, **options}, "length": LENGTH}
        return {"type": "weighted_sum", "components": parts}

    assert paid(both(), settings) == [".components.fluent"]
    assert paid(both(weight=0.3, scale=True), settings) == [".components.fluent"]
    for fine in ({"invert": True}, {"weight": -0.5}, {"weight": 0}, {"reward_mode": "neg_loss"}):
        assert paid(both(**fine), settings) == []
    turned = [{"type": "scale", "mul": -1}]
    assert paid(both(postprocess=turned), settings) == []
    assert paid(both(postprocess=turned, invert=True), settings) == [".components.fluent"]
    assert paid(RAW, settings) == [""]
    assert paid({"type": "min", "components": [LENGTH, RAW]}, settings) == [".components[1]"]
    assert paid({**both(), "invert": True}, settings) == []
    gate = {"type": "gate", "reward": LENGTH, "when": RAW, "threshold": 1}
    assert paid(gate, settings) == []
    assert paid({**gate, "reward": RAW, "when": LENGTH}, settings) == [".reward"]


def test_the_check_shows_the_note_and_the_repository_has_none(settings):
    assert not list(notes(settings({})))
    settings({"baselines.ppo_only.reward": RAW})
    done = CliRunner().invoke(mht.cli.main.commands, ["check"])
    assert done.exit_code == 0
    assert (
        "  note: baselines.ppo_only.reward: is paid for high scores, though its low" in done.output
    )


def test_a_memory_to_begin_with_is_there_and_stays(settings):
    start = "ppo.memory.start"
    memory = {"type": "adaptive", "start": "data/local/memory.parquet"}
    (found,) = problems(settings({"ppo.memory": memory}))
    assert found.startswith(f"{start}: no such file data/local/memory.parquet: give a memory.parq")
    Path("data/local").mkdir(parents=True)
    Path("data/local/memory.parquet").touch()
    assert not list(problems(settings({"ppo.memory": memory})))
    own = {"type": "adaptive", "start": "models/hybrid/memory.parquet"}
    (found,) = problems(settings({"ppo.memory": own}))
    assert found.startswith(f"{start}: DVC empties models/hybrid before the stage runs: copy")
    assert not list(problems(settings({"ppo.memory": own | {"type": "none"}})))
