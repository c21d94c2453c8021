"""The rows of what a library user calls training data: a data set, a frame, a list, columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mht.core.errors import DataError

FORMS = "a datasets.Dataset, a pandas DataFrame, or a list of dicts"


def rows_of(data: Any, name: str) -> Sequence[Any]:
    """The rows of training data in any form, each as its own type has it.

    Args:
        data: rows in a sequence, a `datasets.Dataset`, a data frame of pandas or polars, a table of
            pyarrow, or a dict of columns.
        name: of the argument, for messages.

    Raises:
        DataError: it is none of these, or has no rows.
    """
    rows = _converted(data, name)
    if not len(rows):
        raise DataError(f"{name}: has no rows")
    return rows


def _converted(data: Any, name: str) -> Sequence[Any]:
    if isinstance(data, list | tuple):
        return data
    _refuse(data, name)
    if isinstance(data, Mapping):
        return _of_columns(data, name)
    if hasattr(data, "iloc") and hasattr(data, "to_dict"):  # pandas
        return data.to_dict("records")
    if hasattr(data, "to_dicts"):  # polars
        return data.to_dicts()
    if hasattr(data, "to_pylist"):  # pyarrow
        return data.to_pylist()
    if hasattr(data, "with_format") and hasattr(data, "column_names"):  # datasets
        return list(data.with_format(None))
    if hasattr(data, "__getitem__"):
        return [data[i] for i in range(len(data))]
    return list(data)


def _refuse(data: Any, name: str) -> None:
    """Stop at what people hand over in place of rows."""
    kind = type(data).__name__
    if isinstance(data, str | bytes | Path):
        what = f"a path or text {str(data)[:60]!r}: read it first, such as pandas.read_csv"
    elif isinstance(data, Mapping) and any(hasattr(v, "column_names") for v in data.values()):
        splits = ", ".join(map(str, data))
        first = next(iter(data))
        what = f"a {kind} with the splits {splits}: give one, such as data[{first!r}]"
    elif hasattr(data, "dataset") and hasattr(data, "collate_fn"):
        what = f"a {kind}: give its rows, loader.dataset"
    elif isinstance(data, Iterator) or (hasattr(data, "__iter__") and not hasattr(data, "__len__")):
        what = f"a {kind}, whose length is not known: give a list, such as list(data.take(1000))"
    elif not isinstance(data, Mapping) and not hasattr(data, "__len__"):
        what = f"a {kind}: give {FORMS}"
    elif hasattr(data, "eos_token_id"):
        what = f"a tokenizer ({kind}): give {FORMS}"
    else:
        return
    raise DataError(f"{name}: got {what}")


def _of_columns(data: Mapping[Any, Any], name: str) -> list[dict[str, Any]]:
    columns = {str(key): list(values) for key, values in data.items() if _is_column(values)}
    lengths = {key: len(values) for key, values in columns.items()}
    if len(columns) < len(data) or len(set(lengths.values())) != 1:
        got = ", ".join(f"{key} {lengths.get(str(key), 'no list')}" for key in data)
        raise DataError(f"{name}: a dict of columns needs lists of one length, got {got}")
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, values, strict=True)) for values in rows]


def _is_column(values: Any) -> bool:
    return hasattr(values, "__len__") and not isinstance(values, str | bytes | Mapping)
