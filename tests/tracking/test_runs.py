"""What lands in MLflow: curves, statuses, lineage, one row above; and what a broken store costs."""

import contextlib
import math
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mht.tracking import NullRun, Terminated, open_run
from mht.tracking.content.pipeline import tree_md5
from mht.tracking.content.scope import remaining
from mht.tracking.content.scratch import fingerprint, finished_folder, scratch_folder, start_over
from mht.tracking.secrets import redacted
from mht.tracking.store import Store, open_store

pytest_plugins = ["tests.support.tracking"]

PARAMS = {"base": {"seed": 1}, "sft": {"lr": 1e-4}}
WAIT_S = 30


def run_of(name="sft"):
    return open_run(name, params=PARAMS, experiment="mht")


def client():
    return open_store("mht").client


def runs():
    found = client().search_runs([open_store("mht").experiment_id])
    return {run.info.run_name: run for run in found}


def test_a_finished_run_has_curves_params_artifacts_and_its_model(store_file, tmp_path):
    with run_of() as run:
        for step in range(3):
            run.log({"sft/loss": 1 / (step + 1), "eval@x": step, "bad": math.inf}, step)
        run.summary({"sft/time_s": 2.5})
        Path("reports/b").mkdir(parents=True)
        Path("reports/b/t.md").write_text("table")
        Path("note.txt").write_text("note")
        run.artifact("reports/b")
        run.artifact("note.txt")
        Path("models/sft").mkdir(parents=True)
        Path("models/sft/model.safetensors").write_bytes(b"w" * 200_000)
        run.model("models/sft")
    made = runs()["sft"]
    assert made.info.status == "FINISHED"
    assert made.data.params == {"base.seed": "1", "sft.lr": "0.0001"}
    assert made.data.metrics == {"sft/loss": 1 / 3, "eval.x": 2, "final/sft/time_s": 2.5}
    curve = client().get_metric_history(run.id, "sft/loss")
    assert [(p.step, p.value) for p in curve] == [(0, 1), (1, 0.5), (2, 1 / 3)]
    listed = {file.path for file in client().list_artifacts(run.id)}
    assert listed == {"reports", "note.txt"}
    assert (tmp_path / f"mlartifacts/{run.id}/artifacts/reports/b/t.md").read_text() == "table"
    (model,) = client().search_logged_models([made.info.experiment_id])
    assert (model.source_run_id, model.status.name) == (run.id, "READY")
    assert model.tags["dvc.md5"] == tree_md5("models/sft")
    assert [m.model_id for m in client().get_run(run.id).outputs.model_outputs] == [model.model_id]
    stored = sum(file.stat().st_size for file in Path("mlartifacts").rglob("*") if file.is_file())
    assert stored < 10_000, "the weights were copied"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("no\nsecond line"), "FAILED"),
        (SystemExit(3), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (Terminated(), "KILLED"),
    ],
)
def test_an_exception_ends_the_run_and_propagates(store_file, error, status):
    with pytest.raises(type(error)), run_of() as run:
        run.log({"loss": 1.0}, 7)
        run.artifact("never-written")
        raise error
    made = runs()["sft"]
    assert (made.info.status, made.data.metrics) == (status, {"loss": 1.0})
    expected = {ValueError: "ValueError: no", SystemExit: "SystemExit: 3"}.get(type(error))
    assert made.data.tags.get("mht.error") == expected


def test_points_are_sent_together_about_every_five_seconds(store_file, monkeypatch):
    calls = []
    real = Store.log
    monkeypatch.setattr(Store, "log", lambda *a, **k: (calls.append(k), real(*a, **k)))
    with run_of() as run:
        calls.clear()
        began = time.perf_counter()
        for step in range(1500):
            run.log({"a": step, "b": step}, step)
        each_s = (time.perf_counter() - began) / 1500
        assert not calls and each_s < 1e-3
        run._flushed -= 5
        run.log({"a": 0.0}, 1500)
        assert len(calls) == 1 and len(calls[0]["points"]) == 3001
    assert len(client().get_metric_history(run.id, "b")) == 1500


def test_a_run_id_left_in_the_environment_is_not_this_run(store_file, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with run_of() as run:
        assert run.id != "0" * 32
    assert "MLFLOW_RUN_ID" not in os.environ
    assert runs()["sft"].info.status == "FINISHED"


def test_a_deleted_experiment_comes_back(store_file):
    with run_of():
        pass
    client().delete_experiment(open_store("mht").experiment_id)
    with run_of("again"):
        pass
    assert {"sft", "again"} <= runs().keys()


def _uri_below_a_file(folder):
    (folder / "file").write_text("")
    return f"sqlite:///{folder}/file/mlflow.db"


def _uri_of_no_database(folder):
    (folder / "mlflow.db").write_text("this is no database, but it is long enough to be read")
    return f"sqlite:///{folder}/mlflow.db"


def _uri_read_only(folder):
    return f"sqlite:///file:{folder}/mlflow.db?mode=ro&uri=true"


def _uri_of_nobody(folder):
    return "http://127.0.0.1:9"


@pytest.mark.parametrize(
    "uri", [_uri_below_a_file, _uri_of_no_database, _uri_read_only, _uri_of_nobody]
)
def test_without_a_store_the_stage_finishes_with_one_warning(
    store_file, tmp_path, monkeypatch, capsys, uri
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri(tmp_path))
    began = time.monotonic()
    with run_of() as run:
        run.log({"loss": 1.0}, 0)
        Path("model.bin").write_text("weights")
        run.model("model.bin")
        run.artifact("model.bin")
    assert isinstance(run, NullRun) and Path("model.bin").exists()
    assert time.monotonic() - began < WAIT_S
    assert capsys.readouterr().err.count("warning: tracking could not open the store") == 1


def test_a_disk_that_fills_up_costs_no_training(store_file, capfd):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with run_of() as run:
            run._wait_s = 0  # send at every step
            resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
            for step in range(40):
                run.log({f"metric/{i}": step for i in range(100)}, step)
            Path("model.bin").write_text("weights")
            run.model("model.bin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Path("model.bin").read_text() == "weights"
    assert capfd.readouterr().err.count("warning: tracking could not") == 1


def test_a_database_that_is_deleted_meanwhile_is_one_warning(store_file, capfd):
    with run_of() as run:
        for file in store_file.parent.glob("mlflow.db*"):
            file.unlink()
        run.log({"loss": 1.0}, 0)
    assert capfd.readouterr().err.count("\n") == 1
    assert not store_file.exists()


def test_a_database_that_is_damaged_meanwhile_is_one_warning(store_file, capfd):
    with run_of() as run:
        for file in store_file.parent.glob("mlflow.db*"):
            file.write_bytes(b"no database" * 100)
        run.log({"loss": 1.0}, 0)
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "Traceback" not in err


@pytest.fixture
def impatient():
    """MLflow waits half a second for a locked database, where it would wait for 20."""
    from sqlalchemy import Engine, event

    def shorter(connection, cursor, statement, parameters, context, executemany):
        waits.append("busy_timeout" in statement)
        return statement.replace("busy_timeout = 20000", "busy_timeout = 500"), parameters

    waits = []
    event.listen(Engine, "before_cursor_execute", shorter, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", shorter)
    assert any(waits), "MLflow has another way to wait"


def test_a_locked_database_is_waited_for_and_left(store_file, capfd, impatient):
    with run_of():
        pass
    with contextlib.closing(sqlite3.connect(store_file)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with run_of("second") as run:
            assert isinstance(run, NullRun)
        assert 0.4 < time.monotonic() - began < 2 * WAIT_S
        other.rollback()
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "database is locked" in err
    assert {run.info.status for run in runs().values()} == {"FINISHED"}


@pytest.mark.parametrize("error", [OSError("gone"), KeyboardInterrupt(), Terminated()])
def test_what_was_opened_is_closed_when_opening_fails(store_file, monkeypatch, error):
    """The pipeline run and the stage's own are there when its settings can't be logged."""
    import psutil

    real = Store.log

    def log(store, run_id, **given):
        if given.get("params") and store.get(run_id).name == "sft":
            raise error
        real(store, run_id, **given)

    monkeypatch.setattr(Store, "log", log)
    monkeypatch.setattr("mht.tracking.record.dvc_process", psutil.Process)
    ends = contextlib.nullcontext() if isinstance(error, OSError) else pytest.raises(type(error))
    with ends, run_of() as run:
        assert isinstance(run, NullRun)
    expected = "FAILED" if isinstance(error, OSError) else "KILLED"
    assert {run.info.status for run in runs().values()} == {expected}
    assert len(runs()) == 2


@pytest.mark.parametrize(
    ("uri", "secrets"),
    [
        ("postgresql://me:pa%40ssword@127.0.0.1:9/db", ["pa%40ssword", "pa@ssword"]),
        ("http://me:p@ss/word@127.0.0.1:9", ["p@ss/word", "ss/word"]),
        ("http://tokentoken@127.0.0.1:9", ["tokentoken"]),
        ("http://127.0.0.1:9/?access_token=abcdef&x=1", ["abcdef"]),
        ("mysql://me:hunter22@127.0.0.1:9/db?ssl_key=abcdefg", ["hunter22", "abcdefg"]),
        ("nonsense://me:hunter22@somewhere", ["hunter22"]),
    ],
)
def test_credentials_are_shown_nowhere(store_file, project, monkeypatch, capfd, uri, secrets):
    from typer.testing import CliRunner

    from mht.cli.main import commands
    from mht.core.errors import UserError

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with run_of():
        pass
    said = capfd.readouterr().err
    assert "warning: tracking could not open the store" in said and said.count("\n") == 1
    for command in ("lineage", "sync"):
        done = CliRunner().invoke(commands, [command])
        assert isinstance(done.exception, UserError), done.exception
        said += done.output + str(done.exception)
        assert len(str(done.exception).splitlines()) == 1
    for secret in secrets:
        assert secret not in said


def test_credentials_in_any_text():
    text = "no route to http://a:b@h/x?token=t1&y=2 (sqlite:///a.db)"
    assert redacted(text) == "no route to http://***@h/x?token=***&y=2 (sqlite:///a.db)"
    assert redacted("me@example.com asked for key=1") == "me@example.com asked for key=1"


def test_figures_without_a_step_are_there_once(store_file):
    store = open_store("mht")
    run_id = store.create_run("a", {})
    for value in (0.5, 0.5, 0.75, 0.75):
        store.figures(run_id, {"final/x": value, "final/y": 1.0})
    points = [(p.step, p.value) for p in client().get_metric_history(run_id, "final/x")]
    assert points == [(0, 0.5), (1, 0.75)]
    assert len(client().get_metric_history(run_id, "final/y")) == 1


def test_what_could_not_be_sent_is_sent_later(store_file, monkeypatch, capsys):
    real, broken = Store.log, True

    def log(*args, **kwargs):
        if broken and kwargs.get("points"):
            raise OSError(28, "No space left on device")
        real(*args, **kwargs)

    with run_of() as run:
        monkeypatch.setattr(Store, "log", log)
        for step in range(3):
            run.log({"loss": step}, step)
            run.flush()
        broken = False
    assert [p.step for p in client().get_metric_history(run.id, "loss")] == [0, 1, 2]
    assert capsys.readouterr().err.count("No space left on device") == 1


def _fork(body):
    """Run ``body`` in a process of its own, which has all imports already; its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    return pid


def _wait_for(path):
    deadline = time.monotonic() + WAIT_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


def _sleep_in_a_run(name):
    with run_of(name) as run:
        run.log({"loss": 1.0}, 0)
        Path(name).touch()
        time.sleep(2 * WAIT_S)


def test_sigterm_ends_the_run_as_killed_and_sigkill_is_found_later(store_file):
    pids = {name: _fork(lambda name=name: _sleep_in_a_run(name)) for name in ("term", "kill")}
    try:
        for name in pids:
            _wait_for(Path(name))
        os.kill(pids["term"], signal.SIGTERM)
    finally:
        os.kill(pids["kill"], signal.SIGKILL)
        endings = [os.waitpid(pid, 0)[1] for pid in pids.values()]
    assert [os.waitstatus_to_exitcode(ending) for ending in endings] == [1, -signal.SIGKILL]
    before = runs()
    assert (before["term"].info.status, before["term"].data.metrics) == ("KILLED", {"loss": 1.0})
    assert before["kill"].info.status == "RUNNING", "nobody could close it"
    with run_of("outer") as living, run_of("inner"):
        assert client().get_run(living.id).info.status == "RUNNING"
    dead = runs()["kill"]
    assert (dead.info.status, dead.data.tags["mht.reaped"]) == ("KILLED", "true")


FAKE_DVC = """
import os, sys
from mht.tracking import open_run
import mlflow

def stage(name, fail):
    os.environ["DVC_STAGE"] = name
    with open_run("x", params={"base": {"seed": 1}}, experiment="mht") as run:
        if fail:
            raise ValueError(name)
for name, fail in (("one", False), ("two@a", True), ("three", False)):
    child = os.fork()
    if child == 0:
        try:
            stage(name, fail)
        except ValueError:
            os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_the_stages_of_one_dvc_share_one_pipeline_run(store_file):
    Path("dvc").write_text(FAKE_DVC)
    here = {"PYTHONPATH": str(Path(__file__).parents[2]), "DVC_EXP_NAME": "warm-fox"}
    subprocess.run([sys.executable, "dvc"], env={**os.environ, **here}, check=True, timeout=60)
    made = runs()
    parent = made.pop("warm-fox")
    assert made.keys() == {"one", "two@a", "three"}
    for run in made.values():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.params == {"base.seed": "1"}
    assert parent.data.tags["dvc.exp_name"] == "warm-fox"
    assert parent.info.status == "FAILED", "a stage's failure outlasts the stages after it"
    assert parent.data.tags["mht.lineage.three"] == made["three"].info.run_id
    assert "mht.lineage.two.a" not in parent.data.tags


def _short_run(start, name):
    _wait_for(start)
    with run_of(name) as run:
        run.log({"loss": 1.0}, 0)


def test_four_processes_open_a_new_store_at_once(tmp_path, monkeypatch, capfd):
    import mlflow  # noqa: F401  (so that the four start together)

    database = tmp_path / "new" / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.chdir(tmp_path)
    pids = [_fork(lambda n=n: _short_run(tmp_path / "start", f"run {n}")) for n in range(4)]
    (tmp_path / "start").touch()
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4
    assert capfd.readouterr().err == "", "noise or a warning"
    assert {name: run.info.status for name, run in runs().items()} == {
        f"run {n}": "FINISHED" for n in range(4)
    }
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_runs_are_found_by_the_content_of_dvc_lock(project, reproduce, store_file, monkeypatch):
    from mht.tracking.content.pipeline import read_pipeline
    from mht.tracking.states import lineage, sync

    monkeypatch.setattr("mht.tracking.record.dvc_process", lambda: None)
    reproduce()
    for stage in ("sft@a", "sft@b"):  # what they would do inside `dvc repro`
        monkeypatch.setenv("DVC_STAGE", stage)
        with run_of():
            pass
    made = {m.stage: m for m in lineage(open_store("mht"), read_pipeline("HEAD"))}
    assert made["sft@a"].run.name == "sft@a"
    assert made["prepare"].ran and made["prepare"].run is None
    tags = runs()["sft@a"].data.tags
    assert tags["dvc.dep.data"] == tree_md5("data")
    assert tags["dvc.out.models/one"] == tree_md5("models/one")
    assert runs()["sft@a"].data.params == PARAMS_OF_SFT
    assert runs()["sft@a"].data.metrics == {"final/loss": 0.5}

    monkeypatch.setenv("DVC_STAGE", "report@long-a")
    with run_of():
        pass
    report = runs()["report@long-a"]
    assert report.data.tags["mht.upstream.sft.a"] == runs()["sft@a"].info.run_id

    rows = sync(open_store("mht"), dict)
    assert [row.added for row in rows] == [True, False], "HEAD's row is the workspace's too"
    assert [row.added for row in sync(open_store("mht"), dict)] == [False, False]
    row = client().get_run(rows[0].run_id)
    assert row.data.metrics == {"sft.a/loss": 0.5, "sft.b/loss": 0.25}
    assert row.data.tags["mht.lineage.sft.b"] == runs()["sft@b"].info.run_id
    assert row.data.params["sft.lr"] == "0.001"


def test_the_pipeline_run_shows_what_repro_would_skip(project, reproduce, store_file, monkeypatch):
    import psutil

    reproduce()
    monkeypatch.setattr("mht.tracking.record.dvc_process", psutil.Process)
    monkeypatch.setenv("DVC_STAGE", "sft@b")
    Path("metrics/b.json").write_text('{"loss": 7}')
    with run_of():
        pass
    (above,) = [run for run in runs().values() if run.data.tags["mht.kind"] == "pipeline"]
    assert above.data.metrics == {"sft.a/loss": 0.5, "sft.b/loss": 7}
    Path("raw.txt").write_text("sft@a is stale now")
    Path("metrics/a.json").write_text('{"loss": 9}')
    with run_of():
        pass
    again = client().get_run(above.info.run_id)
    assert again.data.metrics["sft.a/loss"] == 0.5, "nothing of a stale stage"
    for key in again.data.metrics:
        assert len(client().get_metric_history(above.info.run_id, key)) == 1, key


def test_a_pipeline_run_is_open_while_stages_remain(project, reproduce, store_file, monkeypatch):
    import psutil

    reproduce()
    monkeypatch.setattr("mht.tracking.record.dvc_process", psutil.Process)
    monkeypatch.setenv("DVC_STAGE", "sft@a")

    def status():
        (above,) = [run for run in runs().values() if run.data.tags["mht.kind"] == "pipeline"]
        return above.info.status

    Path("models/one").write_text("changed, so the reports are stale")
    with run_of():
        pass
    assert status() == "RUNNING"
    with pytest.raises(ValueError), run_of():
        raise ValueError
    assert status() == "FAILED", "DVC stops there"


def test_what_remains_is_what_dvc_was_asked_for(project, reproduce):
    from mht.tracking.content.pipeline import read_pipeline

    reproduce()
    pipeline = read_pipeline()
    changed = {**pipeline.stages["sft@a"].recorded, "models/one": "0" * 32}
    reports = ["report@short-a", "report@long-a"]

    def left(command, own="sft@a", written=changed, ran=()):
        return remaining(pipeline, command.split(), own, written, ran)

    assert left("python /bin/dvc repro") == reports
    assert left("dvc exp run -S sft.lr=1 -n mine") == reports
    assert left("dvc repro sft") == left("dvc repro sft@a") == []
    assert left("dvc repro report@long-a") == ["report@long-a"]
    assert left("dvc repro -s sft@a report@long-a") == ["report@long-a"]
    assert left("dvc repro --downstream dvc.yaml:sft@a") == reports
    same = dict(pipeline.stages["sft@a"].recorded)
    assert left("dvc repro", written=same) == []
    assert left("dvc repro -f", written=same, ran=["prepare"]) == ["sft@b", *reports]
    assert left("python my_script.py") == reports


PARAMS_OF_SFT = {"base.seed": "1", "sft.lr": "0.0001"}


# -- what a killed run leaves -----------------------------------------------------------------


def test_the_fingerprint_is_of_all_that_decides_the_outcome():
    known = ("python -m stages.sft", {"models/base": "a.dir"}, {"sft.lr": "0.1"})
    same = fingerprint(known[0], dict(known[1]), dict(known[2]))
    assert fingerprint(*known) == same
    others = [
        ("python -m stages.ppo", known[1], known[2]),
        (known[0], {"models/base": "b.dir"}, known[2]),
        (known[0], {**known[1], "mht/losses/policy.py": "c"}, known[2]),
        (known[0], known[1], {"sft.lr": "0.2"}),
        (known[0], known[1], {**known[2], "sft.steps": "1"}),
    ]
    assert len({fingerprint(*other) for other in others} | {same}) == 6


def test_scratch_of_other_runs_is_kept_for_a_week(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    own, young, old = (scratch_folder("sft", name) for name in ("own", "young", "old"))
    for folder, days in ((own, 30), (young, 6), (old, 8)):
        folder.mkdir(parents=True)
        (folder / "state").write_text("x")
        then = time.time() - days * 24 * 3600
        os.utime(folder, (then, then))
    scratch_folder("sft", "own")
    assert own.is_dir() and young.is_dir()
    assert not old.exists()


def test_scratch_lies_at_the_root_and_can_be_dropped(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    folder = scratch_folder("ppo@sft_only", "0123")
    assert folder.parent.parent == tmp_path / ".mht" / "scratch"
    folder.mkdir(parents=True)
    (folder / "state").write_text("x")
    assert scratch_folder("ppo@sft_only", "0123").is_dir()
    finished_folder(folder).mkdir()
    monkeypatch.setenv("MHT_FRESH", "0")
    start_over([folder])
    assert folder.is_dir()
    monkeypatch.setenv("MHT_FRESH", "1")
    start_over([folder])
    assert not folder.exists() and not finished_folder(folder).exists()
    assert scratch_folder("sft", "0123") == tmp_path.resolve() / ".mht/scratch/sft/0123"


def test_without_known_deps_no_state_is_kept(store_file):
    """A folder that is no DVC repository: what a stage reads is unknown."""
    with run_of() as run:
        assert run.scratch is None


def test_a_run_that_ends_well_while_others_look_stays_finished(store_file, monkeypatch):
    """It was RUNNING in the search, and its process is gone when that is asked for."""
    store = open_store("mht")
    run_id = store.create_run("quick", {"mht.process": "here:1:1"})

    def gone(_):
        store.set_status(run_id, "FINISHED")
        return False

    monkeypatch.setattr("mht.tracking.store.is_alive", gone)
    store.reap()
    assert store.get(run_id).status == "FINISHED"
    assert "mht.reaped" not in store.get(run_id).tags
