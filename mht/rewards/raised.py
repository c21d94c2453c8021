"""What a user's function raised: where, what, and on which sample."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mht.core.errors import first_line, shown
from mht.data.text.sample import Sample


def raised(error: Exception, file: Path) -> str:
    """File, line and the line's code with the error, in two lines at most."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).resolve() == file.resolve()]
    what = f"{type(error).__name__}: {first_line(error)}"
    if not own:  # the file itself can't be run
        line = getattr(error, "lineno", None)
        return f"{file}{f':{line}' if line else ''}: {what}"
    last = own[-1]
    code = f"\n    {last.line}" if last.line else ""
    return f"{file}:{last.lineno}, in {last.name}: {what}{code}"


def first_to_raise(
    call: Callable[[Sequence[Sample]], Any], samples: Sequence[Sample], kind: type[Exception]
) -> str:
    """Prompt and response of the first sample that raises the same by itself.

    Args:
        call: the function on a batch.
        samples: on which it raised.
        kind: of the error.
    """
    for number, sample in enumerate(samples, start=1):
        try:
            call([sample])
        except kind:
            return (
                f"  on response {number} of {len(samples)}: {shown(sample.response)}\n"
                f"  to the prompt: {shown(sample.prompt)}"
            )
        except Exception:  # another error than the one to explain
            continue
    return f"  on all {len(samples)} responses together; on none of them alone"
