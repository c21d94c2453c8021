"""Makes .venv with what MHT needs, and a torch that fits the machine. Standard library only.

uv installs the packages where it is on the PATH, else pip. Without an NVIDIA GPU torch is the CPU
build (some 200 MB) and never the several GB of CUDA that the plain package brings on Linux.
``TORCH=cpu`` or ``TORCH=cuda`` in the environment overrides what was detected. Nothing is done
while pyproject.toml and constraints.txt are as they were.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".installed"
LOG = VENV / "install.log"
HEARTBEAT_S = 20
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")


class SetupError(Exception):
    """Setting up can't go on; the message says why and what to do."""


def main() -> int:
    """Bring .venv up to date; 0 when it is, 2 with one line on stderr when it can't be."""
    try:
        flavour = wanted_flavour(os.environ.get("TORCH", ""))
        stamp = {"inputs": fingerprint(), "root": str(ROOT), "torch": flavour}
        if read_stamp() != stamp:
            install(flavour)
            STAMP.write_text(json.dumps(stamp, sort_keys=True) + "\n", encoding="utf-8")
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("setup: interrupted; the next make goes on", file=sys.stderr)
        return 130
    return 0


def wanted_flavour(choice: str) -> str:
    """``"cpu"`` or ``"cuda"``: the choice where one was made, else what the machine has."""
    if choice in ("cpu", "cuda"):
        return choice
    if choice not in ("", "auto"):
        raise SetupError(f"TORCH must be cpu, cuda or auto, got {choice!r}")
    return "cuda" if has_nvidia_gpu() else "cpu"


def has_nvidia_gpu() -> bool:
    """Whether a working NVIDIA driver is here."""
    if Path("/proc/driver/nvidia/version").exists():
        return True
    if not shutil.which("nvidia-smi"):
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return listed.returncode == 0 and "GPU" in listed.stdout


def fingerprint() -> str:
    """Hash of everything that decides what is installed."""
    digest = hashlib.sha256(platform.python_version().encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def read_stamp() -> dict[str, str] | None:
    """What the last complete installation was made for, or None."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if PYTHON.exists() else None


def install(flavour: str) -> None:
    """Make or update the virtual environment."""
    start = time.monotonic()
    say(f"Python {platform.python_version()}, torch for {flavour.upper()} (docs/howto/setup.md)")
    make_venv(flavour)
    say("[2/2] the packages, as in constraints.txt")
    if not any(run(command) for command in commands(flavour)):
        reason = last_line(LOG.read_text(encoding="utf-8", errors="replace"))
        raise SetupError(f"installing the packages failed: {reason} (all of it in {LOG})")
    if flavour == "cuda" and platform.system() == "Linux" and not cuda_packages(installed()):
        say("note: your index gave a torch without CUDA")
    if flavour == "cpu":
        refuse_cuda(installed(), "was installed all the same: remove .venv and tell us how")
    say(f"done in {time.monotonic() - start:.0f} s; details in {LOG.relative_to(ROOT)}")


def make_venv(flavour: str) -> None:
    """A fresh environment, unless the one there has the same Python, torch flavour and place."""
    say("[1/2] virtual environment .venv")
    before = read_stamp()
    same = before is None or (before["torch"], before["root"]) == (flavour, str(ROOT))
    version = f"Python {platform.python_version()}"
    if PYTHON.exists() and same and output_of([PYTHON, "-V"]) == version:
        STAMP.unlink(missing_ok=True)
        return
    if VENV.exists():
        shutil.rmtree(VENV)
    made = subprocess.run(
        [sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        raise SetupError(
            f"{sys.executable} can't make a virtual environment with pip (on Debian and Ubuntu: "
            f"apt install python3-venv): {last_line(made.stdout + made.stderr)}"
        )


def commands(flavour: str) -> Iterator[list[str]]:
    """The installers' command lines to try, one after the other, until one goes well.

    On Linux without a GPU the CPU build of the user's own index comes first, then uv's.
    """
    torch, uv = pinned("torch"), shutil.which("uv")
    everything = ["install", "-c", "constraints.txt", "-e", ".[dev,docs]"]
    with_uv = [uv, "pip", *everything, "--python", str(PYTHON)] if uv else []
    if flavour == "cpu" and platform.system() == "Linux":
        if uv:
            yield [*with_uv, f"{torch}+cpu"]
            yield [*with_uv, "--torch-backend", "cpu"]
        yield pip(*everything, f"{torch}+cpu", "--only-binary", "torch")
        refuse_cuda(
            planned(torch),
            "would come along, several GB, and no CPU build was found: give pip an index or "
            "find-links that has one (docs/howto/setup.md), install uv, or accept CUDA with "
            "make TORCH=cuda",
        )
    if uv:
        yield with_uv
    yield pip(*everything)


def pip(*arguments: str) -> list[str]:
    """The command line of the environment's pip."""
    return [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]


def pinned(name: str) -> str:
    """``name==version`` as constraints.txt has it."""
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.lower().startswith(f"{name.lower()}=="):
            return line.strip()
    raise SetupError(f"constraints.txt has no {name}==version")


def installed() -> dict[str, str]:
    """Name to version of what is in the environment."""
    code = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
    )
    return dict(json.loads(output_of([PYTHON, "-c", code]) or "{}"))


def planned(requirement: str) -> list[str]:
    """Names of what an installation would bring; nothing where that can't be found out."""
    report = VENV / "report.json"
    report.unlink(missing_ok=True)
    run(pip("install", "--dry-run", "--ignore-installed", "--report", str(report), requirement))
    if not report.exists():
        return []
    steps = json.loads(report.read_text(encoding="utf-8"))["install"]
    return [step["metadata"]["name"].lower() for step in steps]


def cuda_packages(packages: Iterable[str]) -> list[str]:
    """Those of the packages that belong to CUDA."""
    return sorted(name for name in packages if name.startswith(CUDA_PREFIXES))


def refuse_cuda(packages: Iterable[str], why: str) -> None:
    """Stop when the packages hold CUDA."""
    if cuda := cuda_packages(packages):
        raise SetupError(f"CUDA ({len(cuda)} packages such as {cuda[0]}) {why} (log: {LOG})")


def run(command: Sequence[str]) -> bool:
    """Run with all output in the log, a sign of life every 20 s; whether it went well."""
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"\n$ {' '.join(command)}\n")
        log.flush()
        start = time.monotonic()
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        while True:
            try:
                return process.wait(HEARTBEAT_S) == 0
            except subprocess.TimeoutExpired:
                say(f"      ... {time.monotonic() - start:.0f} s")
            except KeyboardInterrupt:
                process.terminate()
                raise


def output_of(command: Sequence[str | Path]) -> str:
    """Standard output of a command, "" when it fails."""
    parts = [str(part) for part in command]
    done = subprocess.run(parts, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip() if done.returncode == 0 else ""


def last_line(text: str) -> str:
    """The last line that says something, an error if there is one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["no output"])[-1]


def say(text: str) -> None:
    """One line of progress."""
    print(f"setup: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
