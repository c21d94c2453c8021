"""What is wrong with the local files of `data.source` and `data.labels`, before anything runs."""

from __future__ import annotations

from mht.config import DataConfig
from mht.core.errors import DataError
from mht.data.sources import Source, Text
from mht.data.sources.fetch import check_judged, note_unwatched, read_rows
from mht.data.sources.files import FileSource
from mht.data.sources.reading import HEAD, check_file


def check_data(config: DataConfig) -> list[str]:
    """One ``path: message`` line for each source of the section ``data`` that can't be read.

    Small local files are read whole. Of large JSON Lines, CSV and Parquet files the first rows are
    read. `fetch` checks bundled corpora, hub data sets and plug-ins.
    """
    same = config.labels == config.source
    found = [_problem("data.source", config.source, judged=same)]
    if config.labels is not None and not same:
        found.append(_problem("data.labels", config.labels, judged=True))
    return [problem for problem in found if problem]


def source_rows(config: DataConfig) -> int | None:
    """The number of rows of a small local `data.source`; None for a large or any other source."""
    source = config.source
    if not isinstance(source, FileSource | Text) or check_file(source.path).stat().st_size > HEAD:
        return None
    return len(source.rows()) if isinstance(source, Text) else sum(1 for _ in source.records())


def _problem(path: str, source: Source, *, judged: bool) -> str | None:
    if not isinstance(source, FileSource | Text):
        return None
    note_unwatched(source, path)
    try:
        rows, places = read_rows(source, path, head=True)
        if judged:
            check_judged(rows, places, source)
    except DataError as error:
        return str(error) if str(error).startswith("data.") else f"{path}: {error}"
    return None
