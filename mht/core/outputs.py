"""Outputs appear whole or not at all: written under a temporary name, then renamed.

DVC's outputs are hard links into its cache. To open one for writing would change the cache too; a
renamed file is a new one and leaves the cache alone.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

import psutil

from mht.core.errors import OutputError

SUFFIX = ".part"  # in .gitignore and .dvcignore
DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM,
    errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
}  # fmt: skip


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """A path beside ``path`` to write a file to; the file takes its place if the block succeeds.

    The folder of ``path`` is made. After a failure ``path`` is as it was.

    Raises:
        OutputError: the disk is full or refuses.
    """
    target = Path(path)
    with _writing(target):
        part = _part(target)
        try:
            yield part
            os.replace(part, target)
        finally:
            _remove(part)


@contextmanager
def replaced_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder beside ``path``, which takes its place if the block succeeds.

    Raises:
        OutputError: the disk is full or refuses.
    """
    target = Path(path)
    with _writing(target):
        part = _part(target)
        old = part.with_name(f".{target.name}.old.{os.getpid()}{SUFFIX}")
        try:
            part.mkdir()
            yield part
            if os.path.lexists(target):
                os.replace(target, old)
            os.replace(part, target)
        finally:
            _remove(part)
            _remove(old)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file, lines ending as they are in the text, in place of the old one."""
    with replaced(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file in place of the old one."""
    with replaced(path) as part:
        part.write_bytes(data)


def disk_problem(error: BaseException) -> str | None:
    """Why the disk refused to write, or None where the error is of another kind.

    Libraries in Rust raise errors of their own, with the number in the message.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (told := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(told[1])
    return os.strerror(number) if number in DISK else None


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except Exception as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        hint = "make room there" if problem == os.strerror(errno.ENOSPC) else "see to it"
        raise OutputError(
            f"{target}: can't be written ({problem}): {hint}, then run again"
        ) from None


def _part(target: Path) -> Path:
    """A name beside the target that only this process uses; what killed ones left goes."""
    for left in target.parent.glob(f".{escape(target.name)}.*{SUFFIX}"):
        pid = left.name.removesuffix(SUFFIX).rpartition(".")[2]
        if pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            _remove(left)
    return target.with_name(f".{target.name}.{os.getpid()}{SUFFIX}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
