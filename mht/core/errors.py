"""Errors that are the user's to mend: one clear line each, exit code 2, never a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SHOWN = 200  # characters of a value in a message
LISTED = 30  # problems in a message


def shown(value: Any) -> str:
    """A value as a message echoes it: its repr, cut off at 200 characters.

    >>> shown("yes"), shown(2**70)
    ("'yes'", 'a whole number of 71 bits')
    """
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, str | bytes):
        value = value[: SHOWN + 1]
    text = repr(value)
    return text if len(text) <= SHOWN + 2 else f"{text[:SHOWN]}..."


def first_line(error: BaseException) -> str:
    r"""The first line of an error's message, cut off at 200 characters, or its type.

    >>> first_line(OSError("no space\nleft")), first_line(OSError())
    ('no space', 'OSError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:SHOWN]


class UserError(Exception):
    """Something outside the code is wrong: a setting, a file, a model, a missing package.

    The message says where (a path in params.yaml, a file and line), what is wrong, what was got
    and what to do.
    """


class ConfigError(UserError):
    """The configuration is wrong.

    Args:
        problems: one ``path: message`` line for each mistake, all of them; the message shows 30.
        source: where the configuration came from, such as ``params.yaml``.
    """

    def __init__(self, problems: Sequence[str], source: str = "the configuration"):
        self.problems = list(problems)
        count = len(self.problems)
        head = f"{count} problem{'' if count == 1 else 's'} in {source}"
        more = [f"and {count - LISTED} more"] if count > LISTED else []
        super().__init__("\n  ".join([head, *self.problems[:LISTED], *more]))


class DataError(UserError):
    """An input file or a column of it is wrong."""


class OutputError(UserError):
    """A file can't be written: the disk is full, or it refuses."""


class ModelError(UserError):
    """A model can't be had or is not what it should be."""


class RewardError(UserError):
    """A reward gave something that can't be trained on, or its saved state does not fit."""


class Elsewhere(UserError):
    """Another process of this run has failed and says why."""


class MissingPackage(UserError):
    """An optional package is not installed.

    Args:
        package: what to ``pip install``.
        needed_by: the component that needs it.
    """

    def __init__(self, package: str, needed_by: str):
        super().__init__(f"{needed_by} needs the package {package!r}: pip install {package}")
