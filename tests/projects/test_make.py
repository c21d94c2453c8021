"""`mht init` and `mht demo`: what a project has, and whose work is kept."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from mht.cli.main import commands
from mht.config import load_config
from mht.core.errors import UserError
from mht.projects.code import package_md5, write_code
from mht.projects.dvc_yaml import project_pipeline
from mht.projects.make import make_project, update_project
from mht.tracking.content.pipeline import tree_md5

ROOT = Path(__file__).parents[2]
ANSWERS = "question,answer\nWhat is one and one?,It is two.\nWho is there?,Nobody at all.\n"
STARS = "text,rating\nA fine film it was in all,3\nA dull one that never ended,-2\n"


def pipeline_of(folder):
    return YAML(typ="safe").load((folder / "dvc.yaml").read_text())


def deps_of(stage):
    return stage.get("do", stage).get("deps", [])


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder outside any repository, with a name for git."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "someone@example.com")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*words, code=0):
    done = CliRunner().invoke(commands, ["init", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit | UserError):
        raise done.exception
    assert (done.exit_code == 0) == (code == 0), done.output
    return done.output if code == 0 else str(done.exception)


def git(folder, *words):
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True).stdout


def test_a_project_has_the_repository_s_pipeline_on_the_installed_code():
    ours = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    text = project_pipeline((ROOT / "dvc.yaml").read_text())
    theirs = YAML(typ="safe").load(text)["stages"]
    assert [*theirs] == ["code", *ours]
    for name, stage in ours.items():
        expected = [f"code/{d}.md5" if d.startswith("mht/") else d for d in deps_of(stage)]
        assert deps_of(theirs[name]) == expected, name
    assert not re.search(r"(?<!code/)mht/", text)


def test_the_hash_of_a_package_is_dvc_s_and_follows_the_code(tmp_path, monkeypatch):
    assert package_md5("mht/losses") == tree_md5("mht/losses")
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("deps: [code/mht/losses.md5, code/mht/data/text.md5, mht/core]")
    write_code()
    assert sorted(p.as_posix() for p in Path("code").rglob("*.md5")) == [
        "code/mht/data/text.md5",
        "code/mht/losses.md5",
    ]
    assert Path("code/mht/losses.md5").read_text().strip() == package_md5("mht/losses")


def test_settings_of_tasks_are_no_code(tmp_path, monkeypatch):
    before = package_md5("mht/tasks")
    files = [file.name for file in Path("mht/tasks").rglob("*.yaml")]
    assert {"settings.yaml", "quick.yaml"} <= {*files}
    monkeypatch.setattr("mht.projects.code.shipped", lambda: tmp_path)
    (tmp_path / ".dvcignore").write_text("__pycache__/\n*.pyc\n")
    assert package_md5("mht/tasks") != before


def test_an_empty_project_is_committed_and_right(here):
    said = init("mine")
    assert "with a first commit" in said and "cd mine" in said
    folder = here / "mine"
    assert git(folder, "status", "--short") == ""
    assert (folder / "stages" / "ppo.py").is_file() and (folder / "rewards" / "mine.py").is_file()
    assert load_config(folder / "params.yaml") == load_config(ROOT / "params.yaml")
    assert "hardlink" in (folder / ".dvc" / "config").read_text()


def test_data_with_answers_are_shown_and_kept_out_of_git(here):
    (here / "qa.csv").write_text(ANSWERS)
    said = init("mine", "--data", "qa.csv")
    assert "prompt  What is one and one?" in said and "target  It is two." in said
    folder = here / "mine"
    tracked = git(folder, "ls-files").split()
    assert "data/local/qa.csv.dvc" in tracked and "data/local/qa.csv" not in tracked
    assert git(folder, "status", "--short") == "" and (folder / "data/local/qa.csv").is_file()
    config = load_config(folder / "params.yaml")
    assert config.data.source.path == "data/local/qa.csv" and config.data.labels is None
    (folder / "data/local/more.csv").write_text(ANSWERS)
    assert git(folder, "status", "--short") == "", "what is put beside it is not offered either"


def test_rated_data_train_a_reward_model(here):
    (here / "stars.csv").write_text(STARS)
    init("mine", "--data", "stars.csv")
    config = load_config(here / "mine" / "params.yaml")
    assert config.data.labels == config.data.source
    assert config.ppo.reward == load_config(ROOT / "params.yaml").ppo.reward


def test_pairs_of_answers_train_a_score(here):
    (here / "pairs.jsonl").write_text('{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}\n' * 3)
    said = init("mine", "--data", "pairs.jsonl")
    assert "worse   No" in said
    assert load_config(here / "mine" / "params.yaml").ppo.reward.type == "reward_model"


def test_conversations_are_shown_with_their_roles(here):
    turns = '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, '
    turns += '{"role": "user", "content": "Well?"}, {"role": "assistant", "content": "Fine."}]'
    (here / "chat.jsonl").write_text(f'{{"messages": {turns}}}\n')
    said = init("mine", "--data", "chat.jsonl")
    assert "user: Hi | assistant: Hello | user: Well?" in said and "target  Fine." in said


def test_columns_that_nothing_tells_are_asked_for_or_named(here, monkeypatch):
    (here / "ab.csv").write_text("a,b\nhello there,fine\nand you,well\n")
    said = init("mine", "--data", "ab.csv", code=2)
    assert "it has: a, b" in said and "--column prompt=" in said
    assert not (here / "mine").exists(), "nothing is made before the data are read"
    assert "prompt  hello there" in init(
        "mine", "--data", "ab.csv", "--column", "prompt=a", "--column", "target=b"
    )
    monkeypatch.setattr("mht.cli.project.init._can_answer", lambda: True)
    done = CliRunner().invoke(commands, ["init", "two", "--data", "ab.csv"], input="\na\nb\n")
    assert done.exit_code == 0 and "Columns: a, b" in done.output
    assert "target  fine" in done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "none.csv"], "none.csv: there is no such file"),
        (["--data", "here.doc"], "the suffix should be one of .csv"),
        (["--data", "here.doc", "--task", "support"], "give --data or --task, not both"),
        (["--data", "a.csv", "--column", "text"], "give ROLE=COLUMN"),
        (["--task", "suport"], "did you mean 'support'?"),
        (["--update"], "there is no project here"),
    ],
)
def test_mistakes_leave_nothing(here, words, says):
    (here / "here.doc").write_text("x")
    (here / "a.csv").write_text(ANSWERS)
    assert says in init("mine", *words, code=2)
    assert not (here / "mine").exists()


def test_somebody_s_files_stay(here):
    (here / "mine").mkdir()
    (here / "mine" / "params.yaml").write_text("mine: 1\n")
    assert "already has params.yaml" in init("mine", code=2)
    assert (here / "mine" / "params.yaml").read_text() == "mine: 1\n"
    assert sorted(p.name for p in (here / "mine").iterdir()) == ["params.yaml"]


def test_within_a_repository_the_project_is_its_own_part_of_it(here):
    git(here, "init", "-q")
    (here / "other.txt").write_text("x")
    said = init("mine")
    assert "commit" not in said
    staged = git(here, "diff", "--cached", "--name-only").split()
    assert "mine/dvc.yaml" in staged and "other.txt" not in staged
    assert (here / "mine" / ".dvc" / "config").is_file()


def test_an_update_writes_pipeline_and_stages_alone(here):
    folder = make_project("mine")
    for name in ("dvc.yaml", "stages/ppo.py", "params.yaml"):
        (folder / name).write_text("x: old\n")
    update_project(folder)
    assert (folder / "params.yaml").read_text() == "x: old\n"
    assert (folder / "stages/ppo.py").read_text() == (ROOT / "stages/ppo.py").read_text()
    assert "always_changed" in (folder / "dvc.yaml").read_text()


def test_a_wheel_has_the_project_s_files(here):
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    (wheel,) = builder.build(directory=str(here / "wheel"), versions=["standard"])
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(here / "site")
    env = {**os.environ, "PYTHONPATH": str(here / "site")}
    command = [sys.executable, "-m", "mht", "init", "mine"]
    done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("dvc.yaml", "stages/ppo.py", ".dvc/plots/variants.json", "configs/accelerate"):
        assert (here / "mine" / name).exists(), name
    assert (here / "mine" / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


@pytest.mark.slow
def test_a_wheel_makes_a_project_that_runs_and_reruns_what_another_version_changes(here):
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    (wheel,) = builder.build(directory=str(here / "wheel"), versions=["standard"])
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, "site"], check=True)
    from tests.support.pipeline import Clone

    user = Clone(here)
    env = {"PYTHONPATH": str(here / "site")}
    said = user.run(sys.executable, "-m", "mht", "demo", **env).stdout
    assert "Two models looked for short paths" in said
    demo = Clone(here / "demo")
    assert demo.run("git", "status", "--short").stdout == ""
    second = user.run(sys.executable, "-m", "mht", "demo", **env).stdout
    assert re.findall(r"Running stage '([^']+)'", second) == ["code"]
    guard = here / "site" / "mht" / "reports" / "guard.py"
    guard.write_text(guard.read_text() + "\n# another version\n")
    third = demo.dvc("repro", **env).stdout
    assert re.findall(r"Running stage '([^']+)'", third) == ["code", "benchmark"]
