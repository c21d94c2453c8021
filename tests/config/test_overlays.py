"""Experiments as overlays: what they say on top of params.yaml, and how they get into it."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mht.cli.main import commands
from mht.config import load_config
from mht.config.overlays.overlay import apply_experiment, lay_over, load_experiment
from mht.core.errors import ConfigError
from mht.tasks.settings import settings_file, task_names

EXPERIMENTS = sorted(Path("experiments").glob("*.yaml"))
BELOW = {  # what an experiment is laid over
    "randomwalks_ablations": settings_file("randomwalks"),
    "memory": settings_file("randomwalks"),
    "reviews_alternation": Path("experiments/reviews.yaml"),
    "support_ablations": settings_file("support"),
}
FILES = [*map(settings_file, task_names()), *EXPERIMENTS]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_experiments_fit_params_yaml_with_equal_budgets(file):
    below = BELOW.get(file.stem)
    config = load_experiment([below, file] if below else file)
    steps = {name: config.optimizer_steps[name] for name in config.baselines}
    assert min(steps.values()) >= 0.95 * max(steps.values()), steps


def test_sections_merge_and_components_are_replaced():
    settings = {"a": {"x": 1, "kind": {"type": "p", "k": 1}, "n": None}}
    lay_over(settings, {"a": {"kind": {"type": "q"}, "n": {"y": 2}}, "b": 3})
    assert settings == {"a": {"x": 1, "kind": {"type": "q"}, "n": {"y": 2}}, "b": 3}


@pytest.fixture
def params(tmp_path):
    return Path(shutil.copy("params.yaml", tmp_path / "params.yaml"))


def test_null_takes_a_variant_out_and_the_last_file_counts(params, tmp_path):
    first, last = tmp_path / "first.yaml", tmp_path / "last.yaml"
    first.write_text(
        "baselines: {ppo_only: null, own: {start: sft, like: ppo}}\nppo: {kl_coef: 0.5}\n"
    )
    last.write_text("untrained: {base: null}\nppo: {kl_coef: 0.25}\n")
    done = CliRunner().invoke(commands, ["apply", str(first), str(last), "--params", str(params)])
    assert done.exit_code == 0, done.output
    config = load_config(params)
    assert list(config.variants) == ["sft_only", "hybrid", "own"]
    assert config.baselines["own"].kl_coef == 0.25
    assert config == load_experiment([first, last])


def test_applying_keeps_comments_and_changes_nothing_when_repeated(params):
    file = settings_file("randomwalks")
    apply_experiment(file, params)
    text = params.read_text()
    assert text.startswith("# Every knob of the experiment.") and "accelerate: null " in text
    apply_experiment(file, params)
    assert params.read_text() == text


def test_a_wrong_experiment_changes_nothing(params, tmp_path):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("ppo: {cycels: 2}\n")
    with pytest.raises(ConfigError, match=r"ppo.cycels: no such option .*'cycles'"):
        apply_experiment(overlay, params)
    overlay.write_text("- a list\n")
    with pytest.raises(ConfigError, match="must hold a mapping of sections"):
        apply_experiment(overlay, params)
    overlay.write_text("baselines: {hybrid: null}\n")
    with pytest.raises(ConfigError, match=r"benchmark.subject: no such variant 'hybrid'"):
        apply_experiment(overlay, params)
    assert params.read_text() == Path("params.yaml").read_text()
