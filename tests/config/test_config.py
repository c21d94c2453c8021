"""params.yaml: types, bounds, unknown keys, all mistakes at once with their paths; YAML itself."""

import copy
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from mht.config import Config, HybridConfig, SFTConfig, load_config, read_yaml
from mht.config.cycles import steps_of
from mht.core.errors import ConfigError
from mht.rewards.text.surface import LengthWindow
from mht.training.schedule import as_plan


@pytest.fixture(scope="module")
def params():
    return read_yaml("params.yaml")


@pytest.fixture
def load(params, tmp_path):
    """``load({"ppo.lr": "fast"})`` loads params.yaml with these changes; None deletes a key."""
    from ruamel.yaml import YAML

    def loaded(changes) -> Config:
        data = copy.deepcopy(params)
        for path, value in changes.items():
            *above, last = path.split(".")
            section = data
            for key in above:
                section = section.setdefault(key, {})
            if value is None:
                del section[last]
            else:
                section[last] = value
        file = tmp_path / "params.yaml"
        YAML(typ="safe").dump(data, file)
        return load_config(file)

    return loaded


def problems(load, changes):
    with pytest.raises(ConfigError) as error:
        load(changes)
    found = error.value.problems
    assert str(error.value).splitlines()[0].startswith(f"{len(found)} problem")
    return found


def test_the_repository_s_own_params():
    config = load_config("params.yaml")
    assert config.ppo.reward is not None
    assert config.sft.steps > 0


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("ppo.lr", "fast", "valid number, got 'fast'"),
        ("ppo.lr", 0, "greater than 0, got 0"),
        ("ppo.lr", -1e-4, "greater than 0"),
        ("ppo.lr", True, "valid number, got True"),
        ("ppo.lr", float("nan"), "finite"),
        ("ppo.kl_coef", float("inf"), "finite"),
        ("ppo.cycles", 1.5, "valid integer"),
        ("ppo.cycles", "3", "valid integer, got '3'"),
        ("ppo.cycles", True, "valid integer"),
        ("ppo.cycles", -1, "greater than or equal to 0"),
        ("ppo.lam", 1.01, "less than or equal to 1"),
        ("ppo.dual_clip", 1.0, "greater than 1"),
        ("ppo.kl_control.type", "adaptiv", "'fixed' or 'adaptive', got 'adaptiv'"),
        ("ppo.kl_control.horizon", 0, "greater than 0"),
        ("ppo.optimizer.type", "adamq", "'adamw'"),
        ("ppo.optimizer.betas", [0.9], "at least 2"),
        ("ppo.score_norm", "yes", "valid boolean"),
        ("baselines.ppo_only.gamma", 2, "less than or equal to 1"),
        ("baselines.sft_only.sft_lr", 0, "greater than 0"),
        ("sft.batch_size", 0, "greater than 0"),
        ("base.seed", -1, "greater than or equal to 0"),
        ("model.dtype", "float8", "'float32'"),
        ("data.splits.test", 1.5, "less than or equal to 1"),
        ("evaluate.decoding.top_p", 0, "greater than 0"),
        ("reward_model.holdout", 1, "less than 1"),
        ("benchmark.metrics", "vader", "valid list"),
        ("benchmark.baseline", "sft_onyl", "'sft_only'"),
        ("ppo", 5, "dictionary"),
    ],
)
def test_wrong_types_and_ranges(load, path, value, says):
    (found,) = problems(load, {path: value})
    where, what = found.split(": ", 1)
    assert where.startswith(path)
    assert says in what


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("bass", "base"),
        ("ppo.learnrate", None),
        ("ppo.kl_coeff", "kl_coef"),
        ("ppo.kl_control.tgt", "target"),
        ("ppo.optimizer.weight_decai", "weight_decay"),
        ("data.splits.validations", "validation"),
        ("data.source.tpye", "type"),
        ("baselines.ppo_only.scheduler.warmup", "warmup_steps"),
        ("baselines.ppo_only.lrr", "lr"),
        ("evaluate.decoding.temprature", "temperature"),
        ("evaluate.judge.tagret", "target"),
        ("ppo.reward.components.length.mni", "min"),
        ("baselines.ppo_only.reward.components.positive.wieght", "weight"),
    ],
)
def test_unknown_keys_at_any_depth(load, path, meant):
    (found,) = problems(load, {path: 1})
    assert found.startswith(f"{path}: no such option {path.rpartition('.')[2]!r}")
    assert "Available: " in found
    if meant:
        assert f"(did you mean {meant!r}?)" in found


def test_missing_keys(load):
    found = problems(load, {"model.name": None, "evaluate.judge": None, "sft": None})
    assert sorted(found) == [
        "evaluate.judge: is required and missing",
        "model.name: is required and missing",
        "sft: is required and missing",
    ]


def test_every_mistake_at_once(load):
    found = problems(
        load,
        {
            "ppo.lr": "fast",
            "ppo.kl_coeff": 0.1,
            "ppo.reward.components.positive.type": "sentimant",
            "ppo.reward.components.length.min": 30,
            "baselines.sft_only.cycles": -1,
            "evaluate.judge.type": "judge",
            "data.source.type": "revews",
            "nonsense": {},
        },
    )
    assert sorted(line.split(": ")[0] for line in found) == [
        "baselines.sft_only.cycles",
        "data.source.type",
        "evaluate.judge.type",
        "nonsense",
        "ppo.kl_coeff",
        "ppo.lr",
        "ppo.reward.components.length",
        "ppo.reward.components.positive.type",
    ]
    (sentiment,) = (line for line in found if "sentimant" in line)
    assert "unknown reward 'sentimant' (did you mean 'sentiment'?)" in sentiment
    (source,) = (line for line in found if "revews" in line)
    assert "unknown source 'revews' (did you mean 'reviews'?)" in source


def test_wrong_postprocess_inside_a_reward(load):
    steps = [{"type": "clip", "min": 2.0, "max": 1.0}, {"type": "whitten"}]
    found = problems(load, {"ppo.reward.postprocess": steps})
    assert found[0].startswith("ppo.reward.postprocess[0]: ")
    assert found[1].startswith("ppo.reward.postprocess[1].type: unknown postprocess 'whitten'")


def test_what_must_fit_together(load):
    (found,) = problems(load, {"ppo.minibatch_size": 24})
    assert found.startswith("ppo.minibatch_size: 24 does not divide batch_size 256")
    (found,) = problems(load, {"ppo.responses_per_prompt": 3})
    assert found.startswith("ppo.responses_per_prompt: 3 does not divide batch_size 256")
    (found,) = problems(load, {"ppo.reward": None})
    assert found.startswith("ppo: steps of ppo need a reward")
    (found,) = problems(load, {"data.splits": {"reward_model": 0.5, "test": 0.5}})
    assert found.startswith("data.splits: the shares leave nothing to train the policy on")
    changes = {"ppo.reward": None, "ppo.ppo_steps_per_cycle": 0, "ppo.scheduler": {}}
    assert load(changes).ppo.reward is None


def test_a_section_made_in_python_says_what_is_wrong():
    settings = {"cycles": "x", "sft_steps_per_cycle": 1, "ppo_steps_per_cycle": 0}
    with pytest.raises(ValidationError, match=r"cycles: should be a valid integer, got 'x'"):
        HybridConfig(**settings)
    settings |= {"cycles": 1, "optimizer": {"type": "adamw", "momentum": 0.5}, "lrr": 1.0}
    says = r"optimizer.momentum: adamw has no option 'momentum'; .*; lrr: no such option 'lrr'"
    with pytest.raises(ValidationError, match=says):
        HybridConfig(**settings)


def test_layers_are_a_number_or_all(load):
    assert load({"model.num_layers_unfrozen": "all"}).model.num_layers_unfrozen == "all"
    assert load({"model.num_layers_unfrozen": 2}).model.num_layers_unfrozen == 2
    for wrong in (0, "some", 1.5):
        found = problems(load, {"model.num_layers_unfrozen": wrong})
        assert all(line.startswith("model.num_layers_unfrozen: should be") for line in found)


def test_lora_value_head_and_references(load):
    assert load({}).model.lora is None
    assert load({"model.lora": {"r": 4}}).model.lora.alpha == 16
    (found,) = problems(load, {"model.lora": {"dropout": 0.1}})
    assert found.startswith("model.lora.dropout: must be 0: with dropout the trained policy")
    (found,) = problems(load, {"model.lora": {"target_modules": []}})
    assert found.startswith("model.lora.target_modules: is empty")
    (found,) = problems(load, {"ppo.value_head": {"type": "mpl"}})
    assert found.startswith("ppo.value_head.type: unknown critic 'mpl' (did you mean 'mlp'?)")
    (found,) = problems(load, {"ppo.value_head": {"type": "ridge", "num_layers": 2}})
    assert found.startswith("ppo.value_head.num_layers: no such option 'num_layers'")
    assert load({"ppo.value_head": {"detach": True}}).ppo.value_head.type == "linear"
    (found,) = problems(load, {"ppo.references": {"base": {"model": "models/base"}}})
    assert found == "ppo.references.base.kl_coef: is required and missing"
    wrong = {"model": "m", "kl_coef": 0.1, "where": {}}
    found = problems(load, {"ppo.references": {"a/b": wrong}})
    assert found[0].startswith("ppo.references.a/b") and "should match pattern" in found[0]
    assert found[1].startswith("ppo.references.a/b.where: names no column")


def test_sections_are_frozen(load):
    with pytest.raises(ValidationError):
        load({}).ppo.lr = 1.0


@pytest.mark.parametrize(
    ("kind", "plan"),
    [
        ("alternation", [(2, 6)] * 5),
        ("linear", [(10, 0), (8, 2), (6, 3), (4, 5), (2, 6)]),
        ("cosine", [(10, 0), (9, 1), (6, 3), (3, 5), (2, 6)]),
        ("step", [(10, 0), (10, 0), (2, 6), (2, 6), (2, 6)]),
    ],
)
def test_a_curriculum_moves_the_mix(kind, plan):
    config = HybridConfig(
        cycles=5,
        sft_steps_per_cycle=2,
        ppo_steps_per_cycle=6,
        mix={"type": kind} | ({} if kind == "alternation" else {"first": {"sft": 10, "ppo": 0}}),
        reward=LengthWindow(min=1, max=2),
        batch_size=4,
        minibatch_size=2,
        epochs=1,
    )
    assert config.plan == as_plan(plan)
    assert config.optimizer_steps == sum(sft + 2 * ppo for sft, ppo in plan)


def test_a_curriculum_of_one_cycle_begins():
    mix = {"type": "linear", "first": {"sft": 3, "ppo": 0}}
    config = HybridConfig(cycles=1, sft_steps_per_cycle=9, ppo_steps_per_cycle=9, mix=mix)
    assert config.plan == as_plan([(3, 0)])


def test_plans():
    sft = SFTConfig(steps=45, eval_every=20)
    assert sft.plan == [(("sft", 20),), (("sft", 20),), (("sft", 5),)]
    assert steps_of(sft.plan)["sft"] == sft.optimizer_steps == sft.as_cycles().optimizer_steps
    assert SFTConfig(steps=0).plan == []
    hybrid = HybridConfig(
        cycles=3,
        sft_steps_per_cycle=2,
        ppo_steps_per_cycle=0,
        batch_size=64,
        minibatch_size=16,
        epochs=2,
    )
    assert hybrid.plan == as_plan([(2, 0)] * 3)
    assert hybrid.updates_per_ppo_step == 8
    assert hybrid.optimizer_steps == 6


# -- the file ---------------------------------------------------------------------------------


def written(tmp_path, text):
    file = tmp_path / "params.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_yaml_1_2(tmp_path):
    """YAML 1.1 would make a text of 1e-5 and True of on."""
    text = "a: 1e-5\nb: on\nc: no\nd: 0o17\ne: true\nf: 2026-11-22\n"
    read = read_yaml(written(tmp_path, text))
    assert read.pop("f").isoformat() == "2026-11-22"
    assert read == {"a": 1e-5, "b": "on", "c": "no", "d": 15, "e": True}


def test_a_learning_rate_in_exponents(load, tmp_path):
    text = Path("params.yaml").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^( +lr:) .*$", r"\1 1e-5", text)
    assert load_config(written(tmp_path, text)).ppo.lr == 1e-5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3, column 2: "),
        ("a: 1\n\tb: 2\n", "line 2, column 1: "),
        ("a: 1\na: 2\n", 'found duplicate key "a"'),
        (b"a: caf\xe9\n", "byte 6 is not UTF-8"),
        ("a: \x00\n", "characters are not allowed"),
        ("", "must hold a mapping"),
        ("- a\n", "must hold a mapping"),
        ("just text", "must hold a mapping"),
    ],
)
def test_broken_files(tmp_path, text, says):
    file = written(tmp_path, text)
    with pytest.raises(ConfigError, match=re.escape(says)) as error:
        load_config(file)
    assert str(error.value).startswith(f"1 problem in {file}")


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "params.yaml")


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    assert read_yaml(written(tmp_path, b"\xef\xbb\xbfa: 1\n")) == {"a": 1}
