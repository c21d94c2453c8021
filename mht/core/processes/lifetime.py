"""A stage ends with what started it, and ctrl-C is one line, from its first moment on.

Used before anything heavy is imported: a `dvc` that is killed while torch loads must not leave a
stage behind. That stage would write beside the next one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from types import FrameType

import psutil

SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh"}
REAPERS = {"init", "systemd", "launchd", "tini", "dumb-init", "docker-init", "catatonit"}
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LAUNCHED = "MHT_LAUNCHED"  # in the environment of the processes that a stage has started
INTERRUPTED, TERMINATED = 130, 143
WATCH_S = 1.0

_bound = threading.Event()


def guard_start() -> None:
    """The first thing that `python -m stages.<name>` does; nothing for any other program."""
    if _stage_module() is None:
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    if is_bound():
        end_with_starter()


def is_bound() -> bool:
    """Whether `dvc`, or a stage that works in several processes, has started this one."""
    return "DVC_STAGE" in os.environ or LAUNCHED in os.environ


def interruptible() -> None:
    """From here on ctrl-C raises KeyboardInterrupt: the stage can close what it has opened."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_with_starter() -> None:
    """Get SIGTERM when the process that started this one ends; leave if it is gone already.

    On Linux the kernel sends it. A shell that stays between `dvc` and the stage, and other systems,
    are watched by a thread.
    """
    if _bound.is_set():
        return
    _bound.set()
    parent = os.getppid()
    die_with_parent()
    starter = _starter()
    if os.getppid() != parent or starter is None or _is_reaper(starter):
        os._exit(TERMINATED)  # it died before the kernel knew whom to tell
    if sys.platform != "linux" or starter.pid != parent:
        threading.Thread(target=_watch, args=(starter,), daemon=True).start()


def die_with_parent() -> None:
    """On Linux, get SIGTERM when the parent process ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _stage_module() -> str | None:
    """``stages.ppo`` in a process that was started as ``python -m stages.ppo``."""
    words = sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return module if module.startswith("stages.") else None


def _stop(signum: int, frame: FrameType | None) -> None:
    """Ctrl-C while modules are imported: nothing is open yet, and an exception may be caught."""
    if LAUNCHED not in os.environ:  # the stage that started this process says it
        name = os.environ.get("DVC_STAGE") or str(_stage_module()).partition(".")[2]
        os.write(2, f"{name}: interrupted\n".encode())
    os._exit(INTERRUPTED)


def _starter() -> psutil.Process | None:
    """The nearest ancestor that is no shell: `dvc`, or a program that drives it."""
    for ancestor in psutil.Process().parents():
        try:
            if ancestor.name() not in SHELLS:
                return ancestor
        except psutil.Error:
            return None
    return None


def _is_reaper(process: psutil.Process) -> bool:
    """Whether it takes over processes whose parent is gone, and starts no stages itself."""
    try:
        name, words = process.name(), process.cmdline()[:1]
    except psutil.Error:
        return True
    runs_python = any("python" in os.path.basename(word) for word in words) or name == "dvc"
    return (process.pid == 1 or name in REAPERS) and not runs_python


def _watch(starter: psutil.Process) -> None:
    while _lives(starter):
        time.sleep(WATCH_S)
    os.kill(os.getpid(), signal.SIGTERM)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
