"""Where rows of text come from: bundled corpora, local files, hub data sets."""

from mht.data.sources.base import OptionError, Source, source
from mht.data.sources.columns import Columns
from mht.data.sources.files import CSV, JSON, JSONLines, Text
from mht.data.sources.hub import Hub
from mht.data.sources.parquet import Parquet
from mht.data.sources.table import read_records
from mht.tasks.corpora import Reviews, Support
from mht.tasks.randomwalks.source import RandomWalks

__all__ = [
    "CSV",
    "JSON",
    "Columns",
    "Hub",
    "JSONLines",
    "OptionError",
    "Parquet",
    "RandomWalks",
    "Reviews",
    "Source",
    "Support",
    "Text",
    "read_records",
    "source",
]
