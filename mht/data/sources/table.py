"""Sources that are tables: their columns, and every record as a row of the pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from mht.core.errors import DataError
from mht.data.sources.base import Source
from mht.data.sources.columns import Columns
from mht.data.sources.rows import ColumnMap, Row

Record = Mapping[str, Any]
Located = tuple[str, Record]  # where it stands, such as "reviews.csv:7", and the record


@dataclass(frozen=True)
class Table:
    """A table that was read.

    Attributes:
        rows: as `Source.rows` gives them.
        places: of each row, such as "reviews.csv:7".
        columns: which column is what.
    """

    rows: list[Row]
    places: list[str]
    columns: ColumnMap


def read_records(
    records: Iterable[Located],
    place: str,
    columns: Columns | None = None,
    rating_range: tuple[float, float] = (-4.0, 4.0),
) -> Table:
    """Every record as a row.

    Args:
        records: each with its place.
        place: the table's name in messages.
        columns: which column is what; None guesses all.
        rating_range: the worst and the best rating; mapped to -4 and 4.

    Raises:
        OptionError: a column is not there, or none can be a text.
        DataError: there are no records, or a cell is not what it should be.
    """
    located = list(records)
    if not located:
        raise DataError(f"{place}: holds no rows")
    found = (columns or Columns()).resolve([r for _, r in located], place, rating_range)
    rows = [found.to_row(record, where) for where, record in located]
    return Table(rows, [where for where, _ in located], found)


class TableSource(Source):
    """A source with columns of its own names.

    Attributes:
        columns: which column is what; unset ones are looked for under the field's usual names. All
            other columns come along in ``item``.
        rating_range: the worst and the best rating in the data; mapped to -4 and 4.
    """

    columns: Columns = Columns()
    rating_range: list[float] = Field(default=[-4.0, 4.0], min_length=2, max_length=2)

    @model_validator(mode="after")
    def _range_is_one(self) -> TableSource:
        if self.rating_range[0] == self.rating_range[1]:
            raise ValueError(f"rating_range needs two different ends, got {self.rating_range}")
        return self

    def records(self, *, head: bool = False) -> Iterable[Located]:
        """Every record of the table with where it stands; with ``head`` the first may do."""
        raise NotImplementedError

    def place(self) -> str:
        """The table's name in messages."""
        raise NotImplementedError

    def read(self, *, head: bool = False) -> Table:
        """Every record as a row, or the first ones of a large table, with their places.

        Raises:
            DataError: the data are missing or not what they should be, in one line.
        """
        low, high = self.rating_range
        return read_records(self.records(head=head), self.place(), self.columns, (low, high))

    def rows(self) -> list[Row]:
        """Every record as a row; see `Source.rows`."""
        return self.read().rows
