"""Writes a memory to a Parquet file that people can open, and reads it again.

The file has a row for each stored response, oldest first. Then it has a row for each remembered
prompt without a response. It names the run that it belongs to, and `load` refuses it elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mht.core.errors import UserError
from mht.core.outputs import replaced
from mht.memory.base import Memory
from mht.memory.difficulty import CLASSES
from mht.memory.store import Attempt

FORMAT = 2  # 1 had a record for each row
KEY = b"mht_memory"
EARLIER = -1  # the step of an attempt of an earlier run
TEXTS = ("prompt", "response", "target")


def save(memory: Memory, path: str | Path, identity: Mapping[str, Any]) -> None:
    """Write a memory; the same memory gives the same bytes.

    Args:
        memory: the memory to write.
        path: of the file.
        identity: plain data that describes the run; `load` needs the same.
    """
    import pyarrow as pa
    from pyarrow import parquet

    tried = memory.rows.numbers[memory.store.columns["row"][memory.store.used]]
    untried = memory.rows.first[np.setdiff1d(memory.known, tried)]
    table = pa.table(_columns(memory, untried), schema=_schema(memory))
    about = {
        "format": FORMAT,
        "data": {"rows": len(memory.rows), "sha256": memory.rows.fingerprint},
        "identity": dict(identity),
        "clock": memory.clock,
        "own": memory.own_state(),
        "lines": _digest(table.to_pydict()),
    }
    text = json.dumps(about, sort_keys=True)
    signed = json.dumps({"about": text, "sha256": _digest(text)})
    table = table.replace_schema_metadata({KEY: signed.encode()})
    with replaced(path) as part:
        parquet.write_table(table, part, write_page_checksum=True)


def _digest(data: Any) -> str:
    return sha256(repr(data).encode(errors="surrogatepass")).hexdigest()


def _columns(memory: Memory, untried: Any) -> dict[str, Any]:
    """Values by column: the responses, then the ``untried`` rows."""
    slots = memory.store.used
    attempts = memory.attempts(slots)
    rows = np.r_[memory.store.columns["row"][slots], untried]
    prompts = memory.rows.numbers[rows]
    said = {
        name: [*(getattr(a, name) for a in attempts), *[None] * len(untried)]
        for name in ("response", "response_ids", "logprobs", "ended", "score", "loss", "step")
    }
    texts = {
        "prompt": [memory.rows.prompts[row] for row in rows],
        "target": [memory.rows.targets[row] for row in rows],
        "prompt_ids": [list(memory.rows.prompt_ids[row]) for row in rows],
    }
    place = {"difficulty": [CLASSES[c] for c in memory.classes[prompts]]}
    place["place"] = _nulls(memory.difficulty[prompts])
    records = {name: _nulls(record[prompts]) for name, record in memory.records.items()}
    return {"row": rows, **texts, **said, **place, **records}


def _nulls(values: Any) -> list[Any]:
    """Plain numbers, None for NaN."""
    return [None if value != value else value for value in values.tolist()]


def _schema(memory: Memory) -> Any:
    import pyarrow as pa

    ids = pa.list_(pa.int32())
    first = {
        "row": pa.int64(), "prompt": pa.string(), "response": pa.string(), "target": pa.string(),
        "score": pa.float64(), "loss": pa.float64(), "step": pa.int64(), "ended": pa.bool_(),
        "difficulty": pa.string(), "place": pa.float64(),
    }  # fmt: skip
    own = {name: pa.from_numpy_dtype(record.dtype) for name, record in memory.records.items()}
    last = {"prompt_ids": ids, "response_ids": ids, "logprobs": pa.list_(pa.float32())}
    return pa.schema(list({**first, **own, **last}.items()))


def load(memory: Memory, path: str | Path, identity: Mapping[str, Any]) -> None:
    """Load another run's memory into a new one.

    Its responses get the step -1, of an earlier run. Responses beyond the memory's capacity are
    dropped, the oldest first.

    Args:
        memory: a new one.
        path: the file that `save` wrote.
        identity: that of this run, as for `save`.

    Raises:
        UserError: the file is missing or damaged, or belongs to another run.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        columns, about = _read(path)
    except _Damaged as error:
        raise UserError(f"{path}: it is damaged, or no memory: {error}") from None
    found = [*_strangers(memory, about, identity)]
    if found:
        raise UserError(f"{path}: {'; '.join(found)}")
    _fill(memory, columns, about)


class _Damaged(Exception):
    """The reason why a file can't be read."""


def _read(path: str | Path) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, page_checksum_verification=True)
        signed = json.loads((table.schema.metadata or {})[KEY])
        text = signed["about"]
        about = json.loads(text)
        columns = table.to_pydict()
        if _digest(text) != signed["sha256"] or _digest(columns) != about["lines"]:
            raise _Damaged("its content does not fit its sha256")
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise _Damaged(str(error).partition("\n")[0]) from None
    except KeyError as error:
        raise _Damaged(f"it has no {error}") from None
    if about["format"] != FORMAT:
        raise _Damaged(f"format {about['format']}, and this version reads {FORMAT}")
    return columns, about


def _strangers(
    memory: Memory, about: Mapping[str, Any], identity: Mapping[str, Any]
) -> Iterator[str]:
    """One message for each difference between the file's identity and this run's."""
    data = about["data"]
    if data["sha256"] != memory.rows.fingerprint:
        yield f"it remembers other training data ({data['rows']} rows, here {len(memory.rows)})"
    theirs, own = dict(_leaves(about["identity"])), dict(_leaves(json.loads(json.dumps(identity))))
    if theirs.pop("tokenizer", None) != own.pop("tokenizer", None):
        yield "it is of another tokenizer"
    for key in sorted({*theirs, *own}):
        if theirs.get(key) != own.get(key):
            yield f"{key} was {json.dumps(theirs.get(key))} and is {json.dumps(own.get(key))}"


def _leaves(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(data, Mapping) or not data:
        yield path, data
        return
    for key, value in data.items():
        yield from _leaves(value, f"{path}.{key}" if path else key)


def _fill(memory: Memory, columns: Mapping[str, list[Any]], about: Mapping[str, Any]) -> None:
    prompts = memory.rows.numbers[np.array(columns["row"], np.int64)]
    for name, record in memory.records.items():
        values = [np.nan if value is None else value for value in columns[name]]
        record[prompts] = np.array(values, record.dtype)
    memory.clock = about["clock"]
    memory.load_own_state(about["own"])
    memory.rank_all()
    attempts = [
        _attempt(memory, columns, i)
        for i, response in enumerate(columns["response"])
        if response is not None
    ]
    memory.store.add(attempts, memory.classes, memory.records["practised"])


def _attempt(memory: Memory, columns: Mapping[str, list[Any]], i: int) -> Attempt:
    names = ("row", *TEXTS, "prompt_ids", "response_ids", "logprobs", "ended", "score", "loss")
    return Attempt(**{name: columns[name][i] for name in names}, step=EARLIER)
