"""Files that the settings name: DVC watches them, or `mht check` and the stages refuse."""

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from mht.checks.watched import check_watched, files_of_evaluation, files_of_training, problems
from mht.cli.main import commands
from mht.config import load_config
from mht.core.errors import ConfigError

pytest_plugins = ["tests.support.tracking"]

ROOT = Path(__file__).parents[2]
MINE = "def score(samples):\n    return [0.0 for _ in samples]\n"


@pytest.fixture
def here(project):
    """A DVC project with this repository's dvc.yaml and params.yaml and a function in a file."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, name)
    for folder in ("rewards", "elsewhere"):
        Path(folder).mkdir()
        Path(folder, "mine.py").write_text(MINE)
    return project


def change(section: str, reward) -> None:
    file, yaml = Path("params.yaml"), YAML()
    data = yaml.load(file)
    *parents, last = section.split(".")
    node = data
    for key in parents:
        node = node[key]
    node[last] = reward
    yaml.dump(data, file)


OUTSIDE = {"type": "python", "file": "elsewhere/mine.py"}


def test_the_repositorys_own_settings_are_watched(here):
    assert problems(load_config("params.yaml")) == []


def test_a_file_in_the_folder_is_watched(here):
    for section in ("ppo.reward", "baselines.ppo_only.reward", "evaluate.judge"):
        change(section, {"type": "python", "file": "rewards/mine.py"})
    assert problems(load_config("params.yaml")) == []


@pytest.mark.parametrize(
    ("section", "reward", "key"),
    [
        ("ppo.reward", OUTSIDE, "ppo.reward.file"),
        (
            "ppo.reward",
            {"type": "min", "components": {"a": {"type": "bleu"}, "b": OUTSIDE}},
            "ppo.reward.components.b.file",
        ),
        ("baselines.ppo_only.reward", OUTSIDE, "baselines.ppo_only.reward.file"),
        ("evaluate.judges", {"mine": OUTSIDE}, "evaluate.judges.mine.file"),
    ],
)
def test_a_file_outside_is_refused_by_check(here, section, reward, key):
    change(section, reward)
    (problem,) = problems(load_config("params.yaml"))
    assert problem.startswith(f"{key}: DVC does not watch elsewhere/mine.py")
    assert "move it into rewards/" in problem
    done = CliRunner().invoke(commands, ["check"])
    assert done.exit_code == 2 and key in done.stderr and "Traceback" not in done.output


def test_the_stages_refuse_it_too(here):
    change("ppo.reward", OUTSIDE)
    config = load_config("params.yaml")
    for read in (files_of_training(config.ppo, "ppo"), files_of_evaluation(config)):
        with pytest.raises(ConfigError, match=r"ppo\.reward\.file: DVC does not watch"):
            check_watched(read, ("rewards", "models/base"))
        check_watched(read, ("rewards", "elsewhere"))
        check_watched(read, ())  # not run by DVC


def test_outside_a_dvc_project_nothing_is_refused(here):
    change("ppo.reward", OUTSIDE)
    shutil.rmtree(".dvc")
    assert problems(load_config("params.yaml")) == []
