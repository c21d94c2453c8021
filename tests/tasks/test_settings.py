"""Tasks by name: the settings file of each, and `mht apply` with them."""

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from mht.cli.main import commands
from mht.config import load_config
from mht.config.overlays.overlay import apply_experiment, load_experiment
from mht.core.errors import UserError
from mht.tasks.settings import experiment_files, quick_file, settings_file, task_names
from tests.support.plugins import install

BUILT_IN = ["randomwalks", "reviews", "support"]


def installed(monkeypatch, folder, name, package=None, settings="sft: {steps: 3}\n"):
    """A package with a task; unless it is named, the task's package is that one."""
    module = f"acme_{folder.name.replace('-', '_')}_{name}"
    members = {"task": {name: package or module}}
    monkeypatch.syspath_prepend(str(install(folder / "site", module, "", members, settings)))
    return folder / "site" / module / "settings.yaml"


@pytest.fixture
def params(tmp_path):
    return Path(shutil.copy("params.yaml", tmp_path / "params.yaml"))


def test_every_task_has_settings_that_fit_params_yaml():
    assert task_names() == BUILT_IN
    for name in task_names():
        assert load_experiment(settings_file(name)).data.source.type == name


def test_apply_takes_the_name_of_a_task(params):
    done = CliRunner().invoke(commands, ["apply", "randomwalks", "--params", str(params)])
    assert done.exit_code == 0, done.output
    assert load_config(params) == load_experiment(settings_file("randomwalks"))


def test_apply_lists_the_tasks():
    done = CliRunner().invoke(commands, ["apply", "--list"])
    assert done.exit_code == 0, done.output
    assert [line.split() for line in done.stdout.splitlines()] == [
        [name, f"mht/tasks/{name}/settings.yaml"] for name in BUILT_IN
    ]


def test_quick_is_the_profile_of_the_task_named_before_it_or_in_use():
    shared, own = quick_file("reviews"), quick_file("randomwalks")
    assert shared == quick_file("json") != own and own.parent == settings_file("randomwalks").parent
    assert experiment_files(["randomwalks", "quick"])[1] == own
    assert experiment_files(["support", "quick"])[1] == shared
    assert experiment_files(["quick"], "randomwalks") == [own]
    assert experiment_files(["quick"], "reviews") == [shared]


@pytest.mark.parametrize("task", BUILT_IN)
def test_a_quick_profile_keeps_the_budgets_equal(params, task):
    config = load_experiment(experiment_files([task, "quick"]), params)
    assert len({config.optimizer_steps[name] for name in config.baselines}) == 1
    assert config.base.seeds == 1 and {"sft_only", "hybrid"} == {*config.baselines}
    whole = load_experiment(settings_file(task), params)
    assert config.optimizer_steps["hybrid"] <= whole.optimizer_steps["hybrid"]


def test_the_task_brings_its_settings_back_after_its_quick_profile(params):
    default = load_config(params)
    done = CliRunner().invoke(commands, ["apply", "quick", "--params", str(params)])
    assert done.exit_code == 0, done.output
    assert load_config(params).sft.steps < default.sft.steps
    apply_experiment(settings_file("reviews"), params)
    assert load_config(params) == default


@pytest.mark.parametrize("other", sorted({*BUILT_IN} - {"reviews"}))
def test_the_reviews_bring_the_default_settings_back(params, other):
    default = load_config(params)
    apply_experiment(settings_file(other), params)
    assert load_config(params) != default
    apply_experiment(settings_file("reviews"), params)
    assert load_config(params) == default


def test_an_unknown_task_is_one_line_with_the_names_there_are():
    with pytest.raises(UserError) as caught:
        settings_file("reveiws")
    assert str(caught.value) == (
        "unknown task 'reveiws' (did you mean 'reviews'?). Available: "
        "randomwalks, reviews, support, quick"
    )


def test_a_suffix_or_a_folder_makes_it_a_file():
    mine, there = Path("mine.yaml"), Path("there/mine")
    assert experiment_files(["mine.yaml", "there/mine"]) == [mine, there]
    assert experiment_files(["support", "mine.yaml"]) == [settings_file("support"), mine]


def test_an_installed_package_adds_a_task(monkeypatch, tmp_path):
    file = installed(monkeypatch, tmp_path, "counting")
    assert task_names() == sorted([*BUILT_IN, "counting"])
    assert settings_file("counting") == file


def test_a_built_in_name_is_refused(monkeypatch, tmp_path):
    installed(monkeypatch, tmp_path, "support")
    with pytest.raises(UserError, match=r"task 'support' is claimed more than once \(mht.tasks.s"):
        settings_file("support")


def test_a_package_that_is_gone_or_has_no_settings_is_named(monkeypatch, tmp_path):
    installed(monkeypatch, tmp_path, "gone", package="acme_absent.task")
    installed(monkeypatch, tmp_path, "empty").unlink()
    with pytest.raises(UserError, match="task 'gone': there is no package acme_absent.task"):
        settings_file("gone")
    with pytest.raises(UserError, match="task 'empty': package acme_.* has no settings.yaml"):
        settings_file("empty")


def remarks(mapping, path=""):
    """Dotted path to value and comment, of every key of a mapping with comments."""
    for key, value in mapping.items():
        token = (mapping.ca.items.get(key) or [None] * 3)[2]
        said = token.value.partition("\n")[0].strip() if token else ""
        yield f"{path}{key}", (value, said)
        if hasattr(value, "ca") and "type" not in value and hasattr(value, "items"):
            yield from remarks(value, f"{path}{key}.")


@pytest.mark.parametrize("task", [*BUILT_IN, "quick"])
def test_no_comment_stays_behind_a_value_that_changed(params, task):
    before = dict(remarks(YAML().load(params.read_text())))
    (file,) = experiment_files([task], "reviews")
    apply_experiment(file, params)
    own = dict(remarks(YAML().load(file.read_text())))
    after = dict(remarks(YAML().load(params.read_text())))
    leaves = {k: v for k, v in after.items() if not hasattr(v[0], "items") or "type" in v[0]}
    changed = [k for k, (value, _) in leaves.items() if k in before and before[k][0] != value]
    assert changed or task == "reviews"
    for path in changed:
        assert after[path][1] == own[path][1], path
    kept = [k for k in leaves if k in before and k not in changed]
    assert all(after[path][1] == before[path][1] for path in kept)
    assert "\n\n" in params.read_text(), "blank lines between sections stay"
