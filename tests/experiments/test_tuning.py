"""Searches for hyperparameters: what is refused, what is tried, kept, shown and applied."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mht.algorithms.ppo.ratio import RatioError
from mht.cli.main import app, commands
from mht.config import Config, TuneConfig, load_config
from mht.config.overlays.overlay import layered
from mht.core.component import build
from mht.core.errors import ConfigError, UserError
from mht.experiments.search import run as module
from mht.experiments.search.as_experiment import differences, override, reason
from mht.experiments.search.report import importances, summary, write_report
from mht.experiments.search.run import Search, alone, outcome
from mht.experiments.search.space import check_space
from mht.experiments.search.start import find_start
from mht.experiments.search.study import best, make_sampler, open_study, trials_wanted
from mht.experiments.search.watch import Watch, objective
from mht.tracking import Pruned
from mht.tracking.content.pipeline import read_pipeline
from tests.support.pipeline import make_clone
from tests.support.tuning import (
    RANDOMWALKS,
    TRIALS,
    job_of,
    outcomes,
    own_store,
    runs_of,
    settings_of,
)

pytest_plugins = ["tests.support.tuning"]
optuna = pytest.importorskip("optuna")

TUNE = Path("experiments/tune.yaml")
LR = {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}


# What is refused, before anything runs.


@pytest.mark.parametrize(
    ("searched", "said"),
    [
        ({"type": "float", "low": 1.0}, "tune.space.ppo.lr: float needs low and high"),
        ({"type": "float", "low": 2.0, "high": 1.0}, "ppo.lr.low: 2 is not below high 1"),
        ({"type": "int", "low": 1, "high": 2.5}, "ppo.lr.high: should be an integer, got 2.5"),
        ({**LR, "low": 0.0}, "ppo.lr.log: needs a low above 0, got 0"),
        ({**LR, "step": 0.1}, "ppo.lr.step: goes with log: false only"),
        ({"type": "categorical"}, "ppo.lr.choices: a categorical setting needs at least one"),
        ({"type": "categorical", "choices": [1], "low": 1}, "ppo.lr.low: a categorical setting"),
        ({**LR, "choices": [1]}, "ppo.lr.choices: are for type categorical"),
        ({"type": "flaot"}, r"ppo.lr.type: should be 'float', 'int' or 'categorical'"),
    ],
)
def test_a_wrong_space_is_named(searched, said):
    with pytest.raises(ConfigError, match=said):
        build(TuneConfig, {"space": {"ppo.lr": searched}}, path="tune")


@pytest.mark.parametrize("metric", ["test/score", "evaluate/p_positive", {"p_positive": 1.0}, {}])
def test_only_validation_figures_are_searched_by(metric):
    with pytest.raises(ConfigError, match=r"tune.metric: "):
        build(TuneConfig, {"metric": metric}, path="tune")


def test_a_grid_needs_an_end():
    with pytest.raises(ConfigError, match="space.ppo.lr: a grid needs a step, or choices"):
        build(TuneConfig, {"space": {"ppo.lr": LR}, "sampler": "grid"})


def refused(path, searched, tmp_path, *, by_dvc=False, **changes):
    settings = {**settings_of(tmp_path, space={path: searched}), **changes}
    with pytest.raises(ConfigError) as caught:
        check_space(settings, build(Config, settings), read_pipeline(), by_dvc=by_dvc)
    return str(caught.value)


def test_paths_are_checked_against_the_settings(tmp_path):
    said = refused("ppo.lrr", LR, tmp_path)
    assert "tune.space.ppo.lrr.low: ppo.lrr: no such option 'lrr' (did you mean 'lr'?)" in said
    said = refused("ppo.gamma", {"type": "float", "low": 0.5, "high": 1.5}, tmp_path)
    assert "tune.space.ppo.gamma.high: ppo.gamma: should be less than or equal to 1" in said
    assert ".low" not in said
    said = refused("ppo.kl_estimator", {"type": "categorical", "choices": ["k1", "k9"]}, tmp_path)
    assert "tune.space.ppo.kl_estimator.choices[1]: ppo.kl_estimator: should be" in said


def test_a_path_must_decide_something_of_a_trial(tmp_path):
    said = refused("sft.lr", LR, tmp_path)
    assert "tune.space.sft.lr: is read before ppo@hybrid, by sft: only `mht tune --dvc`" in said
    said = refused("ppo.response_tokens", {"type": "int", "low": 2, "high": 4}, tmp_path)
    assert "is read before ppo@hybrid, by prepare" in said
    said = refused("evaluate.prompts", {"type": "int", "low": 2, "high": 4}, tmp_path)
    assert "no stage up to ppo@hybrid reads it" in said
    said = refused("ppo.temperature", LR, tmp_path, by_dvc=True)
    assert "decides how a trial is looked at" in said
    settings = settings_of(tmp_path, space={"sft.lr": LR})
    check_space(settings, build(Config, settings), read_pipeline(), by_dvc=True)


def test_the_frame_of_a_search_is_checked(tmp_path):
    settings = settings_of(tmp_path, space={}, metric="validation/scor")
    settings["ppo"]["eval_every"] = 0
    with pytest.raises(ConfigError) as caught:
        check_space(settings, build(Config, settings), read_pipeline(), by_dvc=False)
    said = str(caught.value)
    assert "tune.space: is empty" in said and "ppo.eval_every: a search needs looks" in said
    assert "no such figure 'validation/scor' (did you mean 'validation/score'?)" in said


def test_a_mistake_ends_the_command_with_2(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.yaml").write_text("tune: {space: {ppo.lrr: {type: int, low: 1, high: 2}}}")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["mht", "tune", str(tmp_path / "mine.yaml")])
    with pytest.raises(SystemExit) as caught:
        app()
    assert caught.value.code == 2
    assert "tune.space.ppo.lrr.low: ppo.lrr: no such option" in capsys.readouterr().err
    assert not (tmp_path / "mlflow.db").exists(), "nothing ran"


def test_the_examples_are_right():
    for files in ([TUNE], [RANDOMWALKS, Path("experiments/tune_randomwalks.yaml")]):
        settings = layered(files)
        check_space(settings, build(Config, settings), read_pipeline(), by_dvc=False)
    settings = layered([TUNE])
    changes = differences(layered([]), settings, str)
    assert changes == {"ppo.eval_every": 1, "ppo.eval_prompts": 64}


# The objective, and when a trial is hopeless.


def test_the_objective_is_finite_or_refused():
    with pytest.raises(UserError, match="diverged"):
        objective({"validation/score": math.nan}, {"validation/score": 1.0})
    with pytest.raises(UserError, match="no validation/score in validation/sft_loss"):
        objective({"validation/sft_loss": 1.0}, {"validation/score": 1.0})


def test_a_trial_below_the_median_is_pruned_but_not_at_its_end():
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(2, 0))
    weights = {"validation/score": 1.0}
    for value in (0.5, 0.7):
        watch = Watch(study.ask(), weights)
        for cycle in (0, 1, 2, 3):
            watch(cycle, 3, {"validation/score": value})
        study.tell(watch.trial, value)
    watch = Watch(study.ask(), weights)
    watch(0, 3, {"validation/score": 0.1})  # before the first cycle all are alike
    with pytest.raises(Pruned, match="pruned after cycle 1 of 3"):
        watch(1, 3, {"validation/score": 0.1})
    watch(3, 3, {"validation/score": 0.1})
    assert watch.trial.user_attrs["pruned_at"] == 1
    watch = Watch(study.ask(), weights)
    watch(1, 3, {"validation/score": 0.8})


def test_every_trial_has_a_sampler_of_its_own_seed():
    tune = build(TuneConfig, {"space": {"ppo.lr": LR}, "sampler": "random"})

    def drawn(number):
        study = optuna.create_study(sampler=make_sampler(tune, number))
        return study.ask().suggest_float("x", 0, 1)

    assert drawn(1) == drawn(1) != drawn(2)


# A search.


def test_trials_are_what_they_say(searched):
    _, job, study = searched
    trials = study.get_trials()
    assert [t.number for t in trials] == list(range(TRIALS))
    assert all(1e-4 <= t.params["ppo.lr"] <= 1e-1 for t in trials)
    assert {outcome(t) for t in trials} <= {"complete", "pruned"}
    for t in trials:
        figures = t.user_attrs["figures"]
        assert t.value == pytest.approx(objective(figures, job.config.tune.metric))
        assert max(t.intermediate_values) == t.user_attrs.get("pruned_at", 3)
    assert best(study).value == max(t.value for t in trials if outcome(t) == "complete")


def test_no_trial_reads_the_test_split(searched):
    _, job, _ = searched
    assert not (job.start.prepared / "test.parquet").exists()
    assert (job.start.prepared / "validation.parquet").exists()


def test_one_mlflow_run_with_a_child_for_each_trial(searched):
    folder, job, study = searched
    client, above, trials = runs_of(folder / "mlflow.db")
    assert above.info.status == "FINISHED" and above.info.run_name == "tune-small"
    assert above.data.params["tune.sampler"] == "tpe"
    assert above.data.metrics["tune/best"] == pytest.approx(study.best_value)
    assert sorted(trials) == list(range(TRIALS))
    for t in study.get_trials():
        run = trials[t.number]
        assert run.data.tags["mlflow.parentRunId"] == above.info.run_id
        assert float(run.data.params["ppo.lr"]) == t.params["ppo.lr"]
        assert run.data.tags["mht.outcome"] == outcome(t)
        assert run.info.status == {"complete": "FINISHED", "pruned": "KILLED"}[outcome(t)]
        looks = client.get_metric_history(run.info.run_id, "validation/score")
        assert len(looks) == 1 + max(t.intermediate_values)
        assert client.get_metric_history(run.info.run_id, "ppo/score/mean")
    assert not list((job.folder / "curves").glob("*")), "all curves were sent"


def test_asked_again_it_only_adds_what_is_missing(searched, tmp_path, start, monkeypatch):
    _, job, study = searched
    own_store(tmp_path, monkeypatch)
    shutil.copytree(job.folder, tmp_path / "small")
    before = outcomes(study)
    assert outcomes(Search(job_of(tmp_path, start)).run()) == before
    more = outcomes(Search(job_of(tmp_path, start, trials=TRIALS + 1)).run())
    assert more[:TRIALS] == before and len(more) == TRIALS + 1
    with pytest.raises(UserError, match="had another space, so its trials can't be compared"):
        Search(job_of(tmp_path, start, space={"ppo.lr": LR}))
    late = Search(job_of(tmp_path, start, trials=TRIALS + 3, budget_s=1e-9)).run()
    assert len(late.get_trials()) == TRIALS + 1, "the budget was spent"


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, ".")
from tests.support.tuning import job_of
from mht.experiments.search.run import Search
from mht.experiments.search.start import Start
from mht.experiments.search.watch import Watch

report = Watch.__call__

def kill(self, cycle, cycles, figures):
    if (self.trial.number, cycle) == (2, 1):  # before it may be pruned
        os.kill(os.getpid(), signal.SIGKILL)
    report(self, cycle, cycles, figures)

Watch.__call__ = kill
start = Path(sys.argv[2])
Search(job_of(Path(sys.argv[1]), Start(start / "sft", start / "prepared"))).run()
"""


def test_a_killed_search_goes_on_as_if_it_had_not_been(searched, start, tmp_path, monkeypatch):
    _, _, study = searched
    database = own_store(tmp_path, monkeypatch)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(start.model.parent)],
        env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = open_study(tmp_path / "small").get_trials()
    assert [t.state.name for t in left][2:] == ["RUNNING"]
    assert outcomes(Search(job_of(tmp_path, start)).run()) == outcomes(study)
    client, above, trials = runs_of(database)
    assert above.info.status == "FINISHED" and sorted(trials) == list(range(TRIALS))
    for run in trials.values():
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "ppo/score/mean")]
        assert steps and len(steps) == len(set(steps))
        assert run.info.status in ("FINISHED", "KILLED")


def test_a_trial_that_can_not_be_trained_fails_alone(tmp_path, start, monkeypatch):
    own_store(tmp_path, monkeypatch)
    space = {
        "ppo.batch_size": {"type": "categorical", "choices": [8, 16]},
        "ppo.minibatch_size": {"type": "categorical", "choices": [4, 16]},
    }
    job = job_of(tmp_path, start, space=space, sampler="grid", pruner="none", trials=20)
    assert trials_wanted(job.config.tune) == 4
    study = Search(job).run()
    said = {(t.params["ppo.batch_size"], t.params["ppo.minibatch_size"]): t for t in study.trials}
    assert len(said) == 4
    assert [outcome(t) for t in said.values()].count("failed") == 1
    why = said[8, 16].user_attrs["reason"]
    assert "ppo.minibatch_size: 16 does not divide batch_size 8" in why
    _, _, runs = runs_of(tmp_path / "mlflow.db")
    failed = runs[said[8, 16].number]
    assert failed.info.status == "FAILED" and failed.data.tags["mht.reason"] == why


def test_when_all_trials_fail_the_search_stops(tmp_path, start, monkeypatch):
    own_store(tmp_path, monkeypatch)

    def never(*arguments):
        raise RatioError("PPO: the ratio is off")

    monkeypatch.setattr(module, "run_trial", never)
    job = job_of(tmp_path, start)
    with pytest.raises(UserError, match="all of the first 3 trials failed:\n  PPO: the ratio"):
        Search(job).run()
    assert len(open_study(job.folder).get_trials()) == 3
    _, above, _ = runs_of(tmp_path / "mlflow.db")
    assert above.info.status == "FAILED"


def test_a_bug_is_no_failed_trial(tmp_path, start, monkeypatch):
    own_store(tmp_path, monkeypatch)

    def broken(*arguments):
        raise KeyError("bug")

    monkeypatch.setattr(module, "run_trial", broken)
    with pytest.raises(KeyError):
        Search(job_of(tmp_path, start)).run()


def test_rewards_that_are_searched_are_not_looked_at_with(tmp_path, start, monkeypatch):
    own_store(tmp_path, monkeypatch)
    seen = []
    monkeypatch.setattr(module, "run_trial", lambda config, looked, *rest: seen.append(looked))
    space = {"ppo.temperature": {"type": "float", "low": 0.5, "high": 2.0}}
    search = Search(job_of(tmp_path, start, space=space))
    with pytest.raises(KeyError):  # the trial that was left out has no figures
        search.run()
    assert seen[0].ppo.temperature == 1.0


def test_two_searches_do_not_share_a_study(tmp_path):
    with (
        alone(tmp_path / "x"),
        pytest.raises(UserError, match="x: another `mht tune` works"),
        alone(tmp_path / "x"),
    ):
        pass


# What comes of it.


def test_the_report_has_every_trial(searched, tmp_path):
    _, _, study = searched
    write_report(study, tmp_path, "small")
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert lines[0].startswith("trial,outcome,objective,ppo.lr,ppo.epochs,ppo.kl_estimator,")
    assert sorted(int(line.split(",")[0]) for line in lines[1:]) == list(range(TRIALS))
    assert int(lines[1].split(",")[0]) == study.best_trial.number
    page = (tmp_path / "report.html").read_text()
    assert "http" not in page and page.count("data:image/png") >= 3
    assert "the test split was not read" in page
    assert f"Best: trial {study.best_trial.number}" in summary(study, "small")
    for name in ("history", "curves", "parallel"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_importances_find_what_matters():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: t.suggest_float("a", 0, 1) + 0 * t.suggest_float("b", 0, 1), 30)
    shares = importances(study)
    assert shares["a"] > 0.9 and sum(shares.values()) == pytest.approx(1.0)
    assert importances(optuna.create_study()) == {}


def test_the_best_goes_into_params_with_its_comments(searched, tmp_path, monkeypatch):
    _, job, study = searched
    shutil.copytree(job.folder, tmp_path / ".mht/tune/small")
    shutil.copy("params.yaml", tmp_path / "params.yaml")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    params = tmp_path / "params.yaml"
    words = ["tune", "--name", "small", "--params", str(params), "--apply"]
    done = CliRunner().invoke(commands, words)
    assert done.exit_code == 0, done.output
    values = study.best_trial.params
    was = load_config("params.yaml").ppo.lr
    assert load_config(params).ppo.lr == values["ppo.lr"]
    assert load_config(params).ppo.kl_estimator == values["ppo.kl_estimator"]
    taken = [float(line.split()[2]) for line in done.output.splitlines() if line[:6] == "-  lr:"]
    assert taken == [was] and "dvc repro" in done.output
    assert "# cycles between two looks at the validation prompts" in params.read_text()
    again = CliRunner().invoke(commands, words)
    assert "has these values already" in again.output


def test_nothing_to_apply_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    done = CliRunner().invoke(commands, ["tune", "--name", "none", "--apply"])
    assert isinstance(done.exception, UserError)
    assert "none: there is no search of this name yet" in str(done.exception)


# Where trials start, and as DVC experiments.


def test_a_search_on_params_yaml_needs_its_pipeline(tmp_path, monkeypatch):
    pipeline, config = read_pipeline(), load_config()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="trials start from models/sft, and .*sft is to run: `dvc"):
        find_start(config, config, pipeline, tmp_path)


def test_changes_as_dvc_takes_them():
    assert override("a.b", "it's") == r"++a.b='it\'s'"
    assert override("a", True) == "++a=true" and override("a", 12) == "++a=12"
    base = {"ppo": {"lr": 1.0, "kind": {"type": "a", "x": 1}}}
    new = {"ppo": {"lr": 2.0, "kind": {"type": "a", "x": 2}, "new": None}, "tune": {}}
    assert differences(base, new, str) == {"ppo.lr": 2.0, "ppo.kind.x": 2, "ppo.new": None}
    for other in ({"type": "b"}, {"type": "a"}):
        with pytest.raises(ConfigError, match="ppo.kind"):
            differences(base, {"ppo": {"lr": 1.0, "kind": other}}, str)


def test_why_an_experiment_failed():
    log = "ppo@hybrid: the ratio is off\nERROR: failed to reproduce 'ppo@hybrid'\n"
    assert reason(log) == "ppo@hybrid: the ratio is off"
    assert reason("x\nERROR: failed to reproduce 'sft'") == "ERROR: failed to reproduce 'sft'"


@pytest.mark.slow
def test_trials_as_dvc_experiments(tmp_path, tiny_model_dir):
    """Those that end are experiments, the pruned are none, and the best comes from the cache."""
    clone = make_clone(tmp_path / "mht", tiny_model_dir())
    (clone.path / "mine.yaml").write_text("""
ppo: {eval_every: 1}
tune:
  space: {ppo.lr: {type: categorical, choices: [1.0e-4, 1.0e-3, 1.0e-2, 5.0e-2]}}
  sampler: grid
  startup_trials: 1
  warmup_cycles: 0
""")
    words = [sys.executable, "-m", "mht", "tune", "mine.yaml", "--dvc"]
    clone.set_params({"ppo.cycles": 3})
    clone.commit("three cycles")
    clone.dvc("repro", "sft", "reward_model")
    clone.commit("what trials start from")
    done = clone.run(*words)
    study = open_study(clone.path / ".mht/tune/mine")
    states = {t.number: outcome(t) for t in study.trials}
    assert set(states.values()) == {"complete", "pruned"}, done.stdout + done.stderr
    listed = clone.dvc("exp", "list").stdout
    for number, state in states.items():
        assert (f"tune-mine-{number}]" in listed) == (state == "complete")
    print(done.stdout, done.stderr)
    client, trials = runs_of_experiment(clone.path / "mlflow.db")
    for run in trials.values():
        inner = client.search_runs(
            [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        )
        assert len(inner) == 1, "the experiment's own run is under its trial's"
    assert not list((clone.path / ".mht/scratch/ppo").glob("*/[0-9]*"))
    clone.run(*words, "--apply")
    clone.set_params({"ppo.eval_every": 1})
    again = clone.dvc("repro", "ppo@hybrid").stdout
    assert "Stage 'ppo' is cached" in again


def runs_of_experiment(database):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "mht"]
    found = client.search_runs([experiment.experiment_id], "tags.`mht.kind` = 'trial'")
    return client, {int(r.data.tags["mht.trial"]): r for r in found}
