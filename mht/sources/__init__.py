"""Where rows of text come from: bundled corpora, local files, hub data sets."""

from mht.sources.base import OptionError, Source, source
from mht.sources.columns import Columns
from mht.sources.corpora import Reviews, Support
from mht.sources.files import CSV, JSON, JSONLines, Text
from mht.sources.hub import Hub
from mht.sources.parquet import Parquet
from mht.sources.table import read_records
from mht.sources.walks import RandomWalks

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
