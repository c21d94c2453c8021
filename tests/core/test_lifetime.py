"""A stage ends with the process that started it; ctrl-C while it imports; one maker of outputs."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mht.core.errors import UserError
from mht.core.processes.lifetime import SHELLS
from mht.pipeline.stage_lock import alone

ROOT = Path(__file__).parents[2]
TOY = """
import os, time
from pathlib import Path

Path("pid").write_text(str(os.getpid()))
time.sleep(60)
"""
HOLDER = """
import time
from mht.pipeline.stage_lock import alone
with alone("stages.toy a"):
    print("mine", flush=True)
    time.sleep(60)
"""
ORPHANS_ARE_KNOWN = pytest.mark.skipif(
    sys.platform != "linux" or any("python" in w for w in psutil.Process(1).cmdline()[:1]),
    reason="a Python process takes over orphans here, as one that drives DVC might",
)


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """A folder with a stage that writes its pid while it is imported, then sleeps."""
    (tmp_path / "stages").mkdir()
    shutil.copy(ROOT / "stages" / "__init__.py", tmp_path / "stages")
    (tmp_path / "stages" / "toy.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DVC_STAGE", "toy@a")
    return tmp_path


def toy_pid(folder: Path) -> int:
    """The toy's, once it is there."""
    return int(wait_for(lambda: (f := folder / "pid").exists() and f.read_text()))


def wait_for(find, seconds=30.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := find():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


def started_by(command: str) -> subprocess.Popen:
    """A process that is no shell and has a shell run a command, as `dvc` does."""
    code = f"import subprocess; subprocess.run({command!r}, shell=True)"
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True)


@pytest.mark.parametrize("variable", ["DVC_STAGE", "MHT_LAUNCHED"])
@pytest.mark.parametrize("rest", ["", "; true"], ids=["the parent", "behind a shell that stays"])
def test_a_stage_ends_with_the_process_that_started_it(toys, monkeypatch, rest, variable):
    monkeypatch.delenv("DVC_STAGE")
    monkeypatch.setenv(variable, "1")
    starter = started_by(f"{sys.executable} -m stages.toy{rest}")
    pid = toy_pid(toys)
    starter.kill()
    starter.wait()
    try:
        wait_for(lambda: not psutil.pid_exists(pid))
    finally:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)


@ORPHANS_ARE_KNOWN
def test_a_stage_whose_starter_died_first_does_nothing(toys):
    """Its parent is gone before the stage can ask the kernel to be told."""
    script = f"(sleep 0.5; exec {sys.executable} -m stages.toy; ) & echo $!"
    done = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    pid = int(done.stdout)
    wait_for(lambda: not psutil.pid_exists(pid))
    assert not (toys / "pid").exists(), "the stage began its work"


def test_a_stage_started_by_hand_outlives_its_shell(toys, monkeypatch):
    monkeypatch.delenv("DVC_STAGE")
    # the stage has another stdout, or this would wait for its end
    script = f"{sys.executable} -m stages.toy >/dev/null & echo $!"
    done = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    pid = toy_pid(toys)
    assert pid == int(done.stdout) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("launched", [False, True])
def test_ctrl_c_while_modules_are_imported(toys, monkeypatch, launched):
    if launched:  # the stage that started it says so
        monkeypatch.setenv("MHT_LAUNCHED", "1")
    process = subprocess.Popen([sys.executable, "-m", "stages.toy"], stderr=subprocess.PIPE)
    toy_pid(toys)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == (b"" if launched else b"toy@a: interrupted\n")


def test_importing_the_stages_changes_nothing():
    code = "import signal, stages; assert signal.getsignal(2) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_shells_are_known():
    assert {"sh", "bash", "dash", "zsh"} <= SHELLS


def test_a_second_maker_of_the_same_outputs_names_the_first(toys):
    first = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "mine\n"
    with pytest.raises(UserError) as caught, alone("stages.toy a", wait_s=0.2):
        raise AssertionError("two of them")
    assert f"process {first.pid} is making the same outputs" in str(caught.value)
    with alone("stages.toy b", wait_s=0.2):
        pass  # other outputs
    first.kill()
    first.wait()
    with alone("stages.toy a", wait_s=0.2):
        assert Path(".mht/locks/stages.toy-a.pid").read_text() == str(os.getpid())
    assert not Path(".mht/locks/stages.toy-a.pid").exists()


def test_the_second_one_waits_for_one_that_is_ending(toys):
    first = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "mine\n"
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {first.pid}"])
    with alone("stages.toy a", wait_s=20):
        pass
    killer.wait()
    first.wait()
