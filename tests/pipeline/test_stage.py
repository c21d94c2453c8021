"""What surrounds a stage's work: settings first, exit codes, one clear line, a quiet process."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import mht.pipeline.stage
from mht.core.errors import ConfigError, DataError
from mht.tracking import NullRun, Terminated


class FakeConfig(SimpleNamespace):
    def resolved(self):
        return {"base": vars(self.base)}


@pytest.fixture
def opened(monkeypatch):
    """Stages see a settings object and an untracked run; the arguments `open_run` got."""
    config = FakeConfig(base=SimpleNamespace(experiment="tries", seed=3))
    seen = []

    class Opened(NullRun):
        def __init__(self, name, **given):
            super().__init__()
            seen.append((name, given))

        def __enter__(self):
            return self

        def __exit__(self, kind, *rest):
            seen.append(kind)

    monkeypatch.setattr(mht.pipeline.stage, "_load_config", lambda: config)
    monkeypatch.setattr(mht.pipeline.stage, "open_run", Opened)
    monkeypatch.setattr(mht.pipeline.stage, "prepare_process", lambda name: None)
    monkeypatch.setenv("DVC_STAGE", "ppo@sft_only")
    return SimpleNamespace(config=config, seen=seen)


def test_the_work_gets_config_and_run(opened):
    got = []
    mht.pipeline.stage.run_stage(lambda config, run: got.extend([config, run]))
    assert got[0] is opened.config and isinstance(got[1], NullRun)
    params = {"base": {"experiment": "tries", "seed": 3}}
    given = {"params": params, "experiment": "tries"}
    assert opened.seen == [("ppo@sft_only", given), None]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("data.jsonl:3: no column 'text'"), 2, "data.jsonl:3: no column 'text'"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated(), 143, "terminated"),
    ],
)
def test_an_end_that_is_no_bug_is_one_line_and_a_code(opened, capsys, error, code, line):
    def work(config, run):
        raise error

    with pytest.raises(SystemExit) as left:
        mht.pipeline.stage.run_stage(work)
    assert left.value.code == code
    assert capsys.readouterr().err == f"ppo@sft_only: {line}\n"
    assert opened.seen[-1] is type(error), "the run was not told"


def test_a_disk_that_refuses_is_one_line(opened, capsys):
    def work(config, run):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "models/sft/x")

    with pytest.raises(SystemExit, match="2"):
        mht.pipeline.stage.run_stage(work)
    line = "models/sft/x: No space left on device: see to it, then run again"
    assert capsys.readouterr().err == f"ppo@sft_only: {line}\n"


def test_a_bug_keeps_its_traceback(opened):
    with pytest.raises(FileNotFoundError):
        mht.pipeline.stage.run_stage(lambda config, run: Path("no such file").read_text())
    with pytest.raises(ZeroDivisionError):
        mht.pipeline.stage.run_stage(lambda config, run: 1 / 0)


def test_wrong_settings_open_no_run(opened, monkeypatch, capsys):
    def refuse():
        raise ConfigError(["sft.steps: is required and missing", "sft.lr: no"], "params.yaml")

    monkeypatch.setattr(mht.pipeline.stage, "_load_config", refuse)
    with pytest.raises(SystemExit, match="2"):
        mht.pipeline.stage.run_stage(lambda config, run: pytest.fail("the work began"))
    err = capsys.readouterr().err
    assert "2 problems in params.yaml\n  sft.steps: is required" in err and "sft.lr: no" in err
    assert opened.seen == []


REAL = """
import sys
from mht.pipeline.stage import run_stage
try:
    run_stage(lambda config, run: None)
finally:
    heavy = {"mlflow", "torch", "transformers", "dvc"} & sys.modules.keys()
    print("imported:", *heavy)
"""


def test_a_wrong_params_yaml_imports_nothing_heavy(tmp_path):
    (tmp_path / "params.yaml").write_text("base: {sed: 1}\n")
    (tmp_path / "toy.py").write_text(REAL)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "toy.py"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "base.sed" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == "imported:\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["params.yaml", "toy.py"]


@pytest.mark.parametrize(("name", "offline"), [("fetch", None), ("ppo", "1")])
def test_only_fetch_may_use_the_network(name, offline):
    code = (
        f"import mht.pipeline.stage as s, os; s.prepare_process({name!r}); print(dict(os.environ))"
    )
    env = {k: v for k, v in os.environ.items() if k not in mht.pipeline.stage.ENVIRONMENT}
    env = {**env, "TRANSFORMERS_VERBOSITY": "debug"}
    env.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    seen = eval(done.stdout)
    assert seen.get("HF_HUB_OFFLINE") == offline
    assert seen["TOKENIZERS_PARALLELISM"] == "false"
    assert seen["TRANSFORMERS_VERBOSITY"] == "debug", "the user's own wish stays"
