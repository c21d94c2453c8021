"""Makes .venv with what MHT needs, and a torch that fits the machine. Standard library only.

Without an NVIDIA GPU torch is the CPU build (some 200 MB) and never the several GB of CUDA that
the plain package brings on Linux. ``TORCH=cpu`` or ``TORCH=cuda`` in the environment overrides what
was detected. Nothing is done while pyproject.toml and constraints.txt are as they were.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
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
    torch = pinned("torch")
    say(f"[2/3] {torch} for {flavour.upper()}")
    if installed().get("torch", "").split("+")[0] != torch.partition("==")[2]:
        install_torch(torch, flavour)
    say("[3/3] everything else, as in constraints.txt")
    install_rest()
    if flavour == "cuda" and platform.system() == "Linux" and not cuda_packages(installed()):
        say("note: your index gave a torch without CUDA")
    if flavour == "cpu":
        refuse_cuda(installed(), "was installed all the same: remove .venv and tell us how")
    say(f"done in {time.monotonic() - start:.0f} s; details in {LOG.relative_to(ROOT)}")


def make_venv(flavour: str) -> None:
    """A fresh environment, unless the one there has the same Python, torch flavour and place."""
    say("[1/3] virtual environment .venv")
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


def install_torch(torch: str, flavour: str) -> None:
    """Install torch: as published for CUDA and macOS, else the CPU build from where it is found."""
    if flavour == "cuda" or platform.system() != "Linux":
        require(run(pip("install", torch)), "torch")
        return
    if run(pip("install", f"{torch}+cpu", "--only-binary", ":all:")):
        return  # the user's own index or find-links has it
    if install_uv() and run(uv("install", "--torch-backend", "cpu", torch)):
        return
    refuse_cuda(
        planned(torch),
        "would come along, several GB, and no CPU build was found: give pip an index or find-links "
        "that has one (docs/howto/setup.md), or accept CUDA with make TORCH=cuda",
    )
    require(run(pip("install", torch)), "torch")


def install_rest() -> None:
    """Install MHT and what it needs beside torch: with uv, which is faster, or else with pip."""
    what = ("install", "-c", "constraints.txt", "-e", ".[dev,docs]")
    if install_uv() and run(uv(*what, *uv_sources())):
        return
    require(run(pip(*what)), "the packages")


def install_uv() -> bool:
    """Whether uv is in the environment now."""
    return "uv" in installed() or run(pip("install", pinned("uv")))


def pip(*arguments: str) -> list[str]:
    """The command line of the environment's pip."""
    return [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]


def uv(command: str, *arguments: str) -> list[str]:
    """The command line of the environment's uv."""
    return [str(VENV / "bin" / "uv"), "pip", command, "--python", str(PYTHON), *arguments]


def uv_sources() -> list[str]:
    """Arguments that make uv look where pip is configured to look; the environment's UV_* win."""
    if {"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"} & os.environ.keys():
        return []
    config, arguments = pip_config(), []
    for option, key in (
        ("--default-index", "index-url"),
        ("--index", "extra-index-url"),
        ("--find-links", "find-links"),
        ("--allow-insecure-host", "trusted-host"),
    ):
        for value in config.get(key, "").split():
            arguments += [option, value]
    if "--index" in arguments:
        arguments += ["--index-strategy", "unsafe-best-match"]  # as pip does
    return arguments


def pip_config() -> dict[str, str]:
    """Pip's options from its files and PIP_* variables; the closest wins."""
    found: dict[str, dict[str, str]] = {}
    for line in output_of(pip("config", "list")).splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if value[:1] in ("'", '"'):
            found.setdefault(section, {})[key] = str(ast.literal_eval(value))
    return {k: v for s in ("global", "install", ":env:") for k, v in found.get(s, {}).items()}


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
    """Names of what an installation would bring, without downloading it where that can be had."""
    if "uv" in installed():
        asked = VENV / "requirement.txt"
        asked.write_text(requirement + "\n", encoding="utf-8")
        listed = output_of([*uv("compile", "-q", "--no-header", str(asked)), *uv_sources()])
        if listed:
            return [line.partition("==")[0] for line in listed.splitlines() if "==" in line]
    report = VENV / "report.json"
    command = pip("install", "--dry-run", "--ignore-installed", "--report", str(report))
    require(run([*command, requirement]), "torch")
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
            command, cwd=ROOT, env=environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        while True:
            try:
                return process.wait(HEARTBEAT_S) == 0
            except subprocess.TimeoutExpired:
                say(f"      ... {time.monotonic() - start:.0f} s")
            except KeyboardInterrupt:
                process.terminate()
                raise


def environment() -> dict[str, str]:
    """The caller's, with the certificates that pip was given known to uv too."""
    cert = {"SSL_CERT_FILE": os.environ["PIP_CERT"]} if "PIP_CERT" in os.environ else {}
    return {**cert, **os.environ, "VIRTUAL_ENV": str(VENV)}


def require(went_well: bool, what: str) -> None:
    """Stop, with the end of the log, when an installation failed."""
    if not went_well:
        reason = last_line(LOG.read_text(encoding="utf-8", errors="replace"))
        raise SetupError(f"installing {what} failed: {reason} (all of it in {LOG})")


def output_of(command: Sequence[str | Path]) -> str:
    """Standard output of a command, "" when it fails."""
    parts = [str(part) for part in command]
    done = subprocess.run(
        parts, capture_output=True, text=True, check=False, cwd=ROOT, env=environment()
    )
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
