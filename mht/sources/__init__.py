"""Where rows of text come from: bundled corpora, local files, hub data sets."""

from mht.sources.base import OptionError, Source, source
from mht.sources.corpora import Reviews, Support
from mht.sources.files import CSV, JSON, JSONLines, Parquet, Text
from mht.sources.hub import Hub
from mht.sources.walks import RandomWalks

__all__ = [
    "CSV",
    "JSON",
    "Hub",
    "JSONLines",
    "OptionError",
    "Parquet",
    "RandomWalks",
    "Reviews",
    "Source",
    "Support",
    "Text",
    "source",
]
