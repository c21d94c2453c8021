"""The command: settings checked with exit code 2, lineage and sync of a real pipeline."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mht.cli.main

pytest_plugins = ["tests.support.tracking"]

HERE = Path(__file__).parents[2]


def invoke(*arguments):
    return CliRunner().invoke(mht.cli.main.commands, list(arguments))


def test_check_sums_up_what_will_be_trained():
    done = invoke("check", str(HERE / "params.yaml"))
    assert done.exit_code == 0, done.output
    assert "is right" in done.stdout
    for variant in ("hybrid", "sft_only", "ppo_only"):
        (line,) = [x for x in done.stdout.splitlines() if x.split()[0] == variant]
        assert "optimiser steps" in line


def test_version_and_short_help():
    assert invoke("--version").stdout == f"mht {mht.__version__}\n"
    for words in (["-h"], ["check", "-h"]):
        done = invoke(*words)
        assert done.exit_code == 0 and "Usage:" in done.stdout


def test_check_shows_every_mistake(tmp_path):
    wrong = (HERE / "params.yaml").read_text().replace("seed:", "sead:", 1)
    (tmp_path / "params.yaml").write_text(
        re.sub(r"kl_coef: [\d.]+", "kl_coef: low", wrong, count=1)
    )
    done = invoke("check", str(tmp_path / "params.yaml"))
    assert done.exit_code == 2
    assert "2 problems" in done.stderr
    assert "base.sead" in done.stderr and "ppo.kl_coef" in done.stderr


def test_a_missing_file_and_an_unknown_revision_are_one_line(
    project, reproduce, monkeypatch, capsys
):
    reproduce()
    for arguments in (["check", "none.yaml"], ["lineage", "no-such-rev"]):
        monkeypatch.setattr(sys, "argv", ["mht", *arguments])
        with pytest.raises(SystemExit, match="2"):
            mht.cli.main.app()
    err = capsys.readouterr().err
    assert "none.yaml\n  no such file" in err and "no-such-rev" in err
    assert "Traceback" not in err


def test_lineage_without_a_store_makes_none(project, reproduce, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    assert "not run yet" in invoke("lineage").stdout
    reproduce()
    for rev in ([], ["HEAD"]):
        done = invoke("lineage", *rev)
        assert done.exit_code == 0
        lines = done.stdout.splitlines()
        assert lines[0].startswith("prepare ") and lines[0].endswith("is not on this machine")
        assert len(lines) == 5
    assert not Path("mlflow.db").exists()


def test_sync_adds_a_row_once(project, reproduce, store_file):
    reproduce()
    assert [line.split(": ")[1] for line in invoke("sync").stdout.splitlines()] == [
        "added",
        "already there",
    ]
    again = invoke("sync")
    assert again.exit_code == 0 and "added" not in again.stdout


def test_the_module_is_the_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mht", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    for name in ("check", "lineage", "sync"):
        assert name in done.stdout
