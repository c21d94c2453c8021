"""Variants as DVC experiments: the settings that DVC makes of them, its queue, `mht compare`."""

import csv
import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from mht.cli.main import commands
from mht.config.overlays.overlay import lay_over, load_experiment, read_mapping
from mht.core.errors import ConfigError, UserError
from mht.data.text.sample import Sample
from mht.evaluation.summary import write_samples
from mht.experiments.ablations import as_settings, experiments_of, lost
from mht.experiments.compare import gather, tabulate
from mht.experiments.variants import variants_of

pytest_plugins = ["tests.support.tracking"]

ROOT = Path(__file__).parents[2]
ABLATIONS = ROOT / "experiments/ablations.yaml"
PARAMS = ROOT / "params.yaml"
TOY = """
stages:
  evaluate:
    cmd: python toy.py
    deps: [toy.py]
    params: [ppo, sft]
    outs: [reports/evaluate/hybrid]
"""
TOY_CODE = """
import json, pathlib
from ruamel.yaml import YAML

params = YAML(typ="safe").load(pathlib.Path("params.yaml").read_text())
place = pathlib.Path("reports/evaluate/hybrid")
place.mkdir(parents=True)
rows = [
    {"id": str(i), "prompt": "p", "response": "a b", "target": "a", "kl_nats": i % 3 / 10,
     "reward": params["ppo"]["kl_coef"] + i / 100}
    for i in range(12)
]
(place / "samples.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
"""
VARIANTS = """
benchmark:
  metrics: [reward]
  variants:
    more_kl: {ppo.kl_coef: 0.5}
    other_kl: {ppo.kl_control: {type: adaptive, target: 3.0}}
"""


def invoke(*arguments):
    return CliRunner().invoke(commands, list(arguments))


@pytest.mark.parametrize("name", [e.name for e in experiments_of(ABLATIONS, PARAMS)])
def test_dvc_makes_the_variants_settings_of_them(name, tmp_path):
    from dvc.utils.hydra import apply_overrides

    (experiment,) = (e for e in experiments_of(ABLATIONS, PARAMS) if e.name == name)
    file = tmp_path / "params.yaml"
    shutil.copy(PARAMS, file)
    apply_overrides(file, list(experiment.settings))
    wanted = load_experiment(ABLATIONS, PARAMS)
    (variant,) = (v for v in variants_of(wanted) if v.name == name)
    made, expected = load_experiment([], file), variant.config
    skip = {"benchmark"}
    assert made.model_dump(exclude=skip) == expected.model_dump(exclude=skip)


def test_any_value_survives_the_grammar_of_overrides(tmp_path):
    from dvc.utils.hydra import apply_overrides

    before = {"a": {"b": {"type": "x", "k": 1}, "c": [1], "d": {"e": 1}}, "f": "text"}
    changes = {
        "a": {"b": {"type": "y", "name": "it's, {so}"}, "c": [0.5, "a b", None], "d": {"e": True}},
        "f": "a=b\\c\\'d\\",
        "new": {"type": "z", "deep": {"x": [{"y": 1e-7}]}},
        "n": None,
    }
    file = tmp_path / "params.yaml"
    YAML().dump(before, file)
    apply_overrides(file, list(as_settings(changes, before)))
    lay_over(before, changes)
    assert read_mapping(file) == before


def test_what_the_pipeline_can_not_train_is_refused(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("benchmark: {variants: {a: {recipe: sft_only}}}")
    with pytest.raises(ConfigError, match=r"benchmark.variants.a.recipe: sft_only: .* hybrid"):
        experiments_of(file, PARAMS)
    file.write_text("benchmark: {samples: 3}")
    with pytest.raises(ConfigError, match=r"benchmark.variants: there are none"):
        experiments_of(file, PARAMS)


def test_the_commands_can_be_seen_first():
    done = invoke("ablations", str(ABLATIONS), "--params", str(PARAMS), "--dry-run")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert "dvc exp run --queue --name unfrozen_2 -S ++model.num_layers_unfrozen=2" in lines
    assert len(lines) == len(experiments_of(ABLATIONS, PARAMS))


@pytest.mark.slow
def test_the_queue_takes_them_trains_them_and_they_are_compared(project, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{'/usr/bin:/bin'}")
    Path("dvc.yaml").write_text(TOY)
    Path("toy.py").write_text(TOY_CODE)
    Path("mine.yaml").write_text(VARIANTS)
    shutil.copy(PARAMS, "params.yaml")
    run = ["dvc", "repro", "-q"], ["git", "add", "-A"], ["git", "commit", "-qm", "toy"]
    for command in run:
        subprocess.run(command, check=True)
    for said in ("queued", "is there already"):
        done = invoke("ablations", "mine.yaml")
        assert done.exit_code == 0, done.output
        assert [line.split(maxsplit=1) for line in done.stdout.splitlines()[:2]] == [
            ["more_kl", said], ["other_kl", said],
        ]  # fmt: skip
    subprocess.run(["dvc", "exp", "run", "--run-all", "-q"], check=True, stdin=subprocess.DEVNULL)
    done = invoke("compare", "--metric", "reward", "--csv")
    assert done.exit_code == 0, done.output
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
    assert rows.keys() == {"workspace", "more_kl", "other_kl"}
    assert float(rows["more_kl"]["difference"]) == pytest.approx(0.47)
    assert rows["more_kl"]["verdict"] == "better" and float(rows["more_kl"]["p_adjusted"]) < 0.01
    assert rows["other_kl"]["verdict"] == "unclear", "another reward is not paid by it"
    done = invoke("compare", "no_such_one", "--metric", "reward")
    assert isinstance(done.exception, UserError) and "no_such_one" in str(done.exception)
    assert invoke("ablations", "mine.yaml").stdout.count("is there already") == 2


SLEEPS = """
import os, pathlib, time
pathlib.Path(os.environ["DVC_ROOT"], "pid").write_text(str(os.getpid()))
time.sleep(300)
"""


def _wait_for(find, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := find():
            return found
        time.sleep(0.2)
    raise AssertionError("it did not come")


@pytest.mark.slow
def test_a_task_whose_worker_died_is_queued_again(project, monkeypatch):
    """DVC itself calls it running for ever."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{'/usr/bin:/bin'}")
    Path("dvc.yaml").write_text(TOY)
    Path("toy.py").write_text(SLEEPS)
    Path("mine.yaml").write_text("benchmark: {variants: {more_kl: {ppo.kl_coef: 0.5}}}")
    shutil.copy(PARAMS, "params.yaml")
    for command in (["git", "add", "-A"], ["git", "commit", "-qm", "toy"]):
        subprocess.run(command, check=True)
    assert invoke("ablations", "mine.yaml").stdout.startswith("more_kl              queued\n")
    subprocess.run(["dvc", "queue", "start", "-q"], check=True, stdin=subprocess.DEVNULL)
    pid = int(_wait_for(lambda: (f := project / "pid").exists() and f.read_text()))
    assert "is there already" in invoke("ablations", "mine.yaml").stdout
    own = {psutil.Process().pid, *(p.pid for p in psutil.Process().parents())}
    for process in [psutil.Process(pid), *psutil.Process(pid).parents()]:
        if process.pid not in own and process.pid != 1:
            process.kill()
    _wait_for(lambda: not psutil.pid_exists(pid))
    status = subprocess.run(["dvc", "queue", "status"], capture_output=True, text=True, check=True)
    assert "Running" in status.stdout
    assert lost() == ["more_kl"]
    done = invoke("ablations", "mine.yaml")
    assert "queued again: the worker that ran it has died" in done.stdout, done.output
    status = subprocess.run(["dvc", "queue", "status"], capture_output=True, text=True, check=True)
    assert "Queued" in status.stdout and "Running" not in status.stdout
    assert lost() == [] and "is there already" in invoke("ablations", "mine.yaml").stdout


# Comparison.


def made(folder, means, seeds=8, prompts=10):
    """Results of `mht seeds` with these mean rewards, and a fixed spread."""
    for n in range(seeds):
        for name, mean in means.items():
            rewards = [mean + 0.01 * ((7 * n + 3 * i) % 5) for i in range(prompts)]
            texts = [Sample("p", "a b", "a")] * prompts
            ids = [str(i) for i in range(prompts)]
            write_samples(folder / f"seed_{n}" / name / "samples.jsonl", ids, texts,
                          {"reward": rewards})  # fmt: skip
    summary = {
        "seeds": list(range(seeds)),
        "subject": "hybrid",
        "budget": {name: {} for name in means},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_results_of_seeds_are_compared_with_the_subject(tmp_path):
    folder = made(tmp_path / "one", {"hybrid": 0.5, "worse": 0.2, "same": 0.5})
    table = tabulate(gather([str(folder)]), metrics=["reward"], resamples=500)
    assert table.baseline == "hybrid" and table.seeds == 8 and table.prompts == 10
    by = {line.name: line for line in table.lines}
    assert by["hybrid"].verdict == "baseline" and by["hybrid"].p_adjusted is None
    assert by["worse"].difference == pytest.approx(-0.3)
    alone = made(tmp_path / "alone", {"hybrid": 0.5, "worse": 0.2})
    (line,) = tabulate(gather([str(alone)]), metrics=["reward"]).lines[1:]
    doubled = pytest.approx(2 * line.p_adjusted, rel=1e-4, abs=0)
    assert by["worse"].p_adjusted == doubled, "two lines: Holm doubles it"
    assert by["worse"].verdict == "worse"
    assert by["same"].difference == 0 and by["same"].verdict == "unclear"


def test_folders_are_paired_by_the_seeds_in_common(tmp_path):
    one, two = made(tmp_path / "one", {"hybrid": 0.5}), made(tmp_path / "two", {"x": 0.9}, seeds=6)
    found = gather([str(one), str(two)])
    assert found.seeds == 6 and found.baseline == "one/hybrid"
    table = tabulate(found, metrics=["reward"], baseline="two/x", resamples=200)
    assert [line.name for line in table.lines] == ["two/x", "one/hybrid"]
    assert table.lines[1].difference == pytest.approx(-0.4)


def test_compare_says_what_is_wrong_and_writes_json(tmp_path):
    folder = str(made(tmp_path / "one", {"hybrid": 0.5, "b": 0.6}))
    done = invoke("compare", folder, "--metric", "reward", "--json", "--params", str(PARAMS))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["lines"][1]["verdict"] == "better"
    text = invoke("compare", folder, "--metric", "reward", "--params", str(PARAMS)).stdout
    assert "| Reward ↑ | mean | difference | p | verdict |" in text and "| b | 0.62 [" in text
    with pytest.raises(UserError, match=r"no such experiment 'hybird' \(did you mean 'hybrid'\?\)"):
        tabulate(gather([folder]), metrics=["reward"], baseline="hybird")
    with pytest.raises(UserError, match="can't be paired"):
        gather([folder, "experiment"])
    made(tmp_path / "two", {"x": 0.5}, prompts=9)
    with pytest.raises(UserError, match="different prompts"):
        gather([folder, str(tmp_path / "two")])
