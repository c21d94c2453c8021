"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mht.core.errors import DataError, first_line
from mht.data.sources.base import OptionError, source
from mht.data.sources.files import FileSource
from mht.data.sources.reading import HEAD, check_file, check_once
from mht.data.sources.table import Located

HEAD_ROWS = 10_000


@source("parquet")
class Parquet(FileSource):
    """A Parquet file."""

    def records(self, *, head: bool = False) -> Iterator[Located]:
        """Each record with its row number, from 1."""
        file = check_file(self.path)
        first = head and file.stat().st_size > HEAD
        number = 0
        for batch in self._batches(file):
            for record in batch:
                number += 1
                yield f"{self.path}: row {number}", record
            if first and number >= HEAD_ROWS:
                return

    def _batches(self, file: Any) -> Iterator[list[dict[str, Any]]]:
        """The records, some thousand at a time; what pyarrow finds wrong is an error of the file.

        pyarrow raises its own errors, and Python's. Values that Python can't hold (a date after the
        year 9999, text that is no UTF-8) raise ValueError or OverflowError.
        """
        import pyarrow
        import pyarrow.parquet

        wrong = (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError)
        try:
            with pyarrow.parquet.ParquetFile(file) as opened:
                check_once(opened.schema_arrow.names, self.path)
                for batch in opened.iter_batches(batch_size=HEAD_ROWS):
                    yield batch.to_pylist()
        except PermissionError as error:
            raise OptionError("path", f"{self.path!r} can't be read: {error.strerror}") from None
        except wrong as error:
            raise DataError(f"{self.path}: not a Parquet file: {first_line(error)}") from None
