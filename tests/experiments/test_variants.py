"""Named variants of an experiment: settings, mistakes, and what makes two of them one."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mht.cli.main import commands
from mht.config import load_config
from mht.config.cycles import steps_of
from mht.core.errors import ConfigError
from mht.experiments.variants import Variant, identity, nested, sft_first, training, variants_of


@pytest.fixture(scope="module")
def config():
    return load_config("params.yaml")


def with_variants(config, variants, **changes):
    update = {"variants": variants, **changes}
    benchmark = config.benchmark.model_copy(update=update)
    return config.model_copy(update={"benchmark": benchmark})


def test_dotted_and_nested_settings_are_the_same(config):
    dotted = {"ppo.kl_coef": 0.1, "ppo.kl_control": {"type": "adaptive", "target": 3.0}}
    deep = {"ppo": {"kl_coef": 0.1, "kl_control": {"type": "adaptive", "target": 3.0}}}
    assert nested(dotted) == nested(deep) == deep
    *_, a, b = variants_of(with_variants(config, {"a": dotted, "b": deep}))
    assert a.loop.kl_coef == 0.1 and a.loop.kl_control.target == 3.0
    assert identity(a, config) == identity(b, config)
    assert a.loop.model_copy(update={"kl_coef": 0.0}) != b.loop


def test_a_variant_is_a_hybrid_unless_it_names_a_recipe(config):
    wanted = {
        "mine": {"sft.steps": 0},
        "other": {"recipe": "ppo_only", "baselines.ppo_only.lam": 0.5},
    }
    *_, mine, other = variants_of(with_variants(config, wanted))
    assert mine.recipe == "hybrid" and mine.loop == mine.config.ppo and mine.sft is None
    assert other.loop.lam == 0.5 and other.sft is None
    assert other.loop == other.config.baselines["ppo_only"]


def test_sft_then_ppo_makes_the_hybrids_steps_without_alternation(config):
    by_name = {v.name: v for v in variants_of(config)}
    hybrid, after = by_name["hybrid"], by_name["sft_then_ppo"]
    assert after.plan == sft_first(hybrid.plan)
    assert steps_of(after.plan) == steps_of(hybrid.plan)
    assert after.loop == hybrid.loop and after.sft == hybrid.sft
    assert after.optimizer_steps == hybrid.optimizer_steps
    assert identity(after, config) != identity(hybrid, config)


def test_identity_is_that_of_the_training(config):
    """The same steps spelled otherwise are the same; a setting of another recipe changes none."""
    hybrid = config.ppo
    turn = {"type": "step", "first": {"sft": hybrid.sft_steps_per_cycle, "ppo": 0}}
    halves = {"cycles": 2 * hybrid.cycles, "sft_steps_per_cycle": 0, "mix": turn}
    wanted = {"halves": {"ppo": halves}, "else": {"baselines.sft_only.lam": 0.5}}
    found = {v.name: v for v in variants_of(with_variants(config, wanted))}
    same = {name: identity(v, config) for name, v in found.items()}
    assert same["halves"] == same["sft_then_ppo"], "for no PPO step comes before the last SFT step"
    assert same["else"] == same["hybrid"]
    assert len({str(one) for one in same.values()}) == 5
    assert training(Variant("base", "base", config))["loop"] == {}


def test_every_mistake_is_named_with_its_variant_and_path(config):
    wanted = {
        "typo": {"ppo.cycels": 3},
        "bounds": {"ppo": {"lam": 2.0}, "sft.steps": -1},
        "split": {"data.prompt_words": 3},
        "odd": {"recipe": "hybrids"},
        "hybrid": {"ppo.lam": 0.5},
        "a/b": {},
    }
    with pytest.raises(ConfigError) as caught:
        variants_of(with_variants(config, wanted, subject="hybird"))
    lines = caught.value.problems
    assert len(lines) == 8
    at = "benchmark.variants."
    assert lines[0].startswith(f"{at}typo: ppo.cycels: no such option 'cycels' (did you mean")
    assert {line.split(":")[1].strip() for line in lines[1:3]} == {"ppo.lam", "sft.steps"}
    assert lines[3].startswith(f"{at}split: data: all variants share it")
    assert lines[4].startswith(f"{at}odd.recipe: no such recipe 'hybrids' (did you mean 'hybrid'?)")
    assert "is a recipe's" in lines[5] and "a name is made of" in lines[6]
    assert lines[7].startswith(
        "benchmark.subject: no such variant 'hybird' (did you mean 'hybrid'?)"
    )


def test_check_looks_at_the_variants_too(tmp_path):
    (tmp_path / "params.yaml").write_text(
        Path("params.yaml").read_text() + "  variants: {a: {ppo.x: 1}}\n"
    )
    done = CliRunner().invoke(commands, ["check", str(tmp_path / "params.yaml")])
    assert done.exit_code == 2
    assert "benchmark.variants.a: ppo.x: no such option" in done.stderr
