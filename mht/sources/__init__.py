"""Where rows of text come from: bundled corpora, local files, hub data sets."""

from mht.sources.base import OptionError, Source, source
from mht.sources.corpora import Reviews, Support
from mht.sources.files import CSV, JSON, JSONLines, Parquet, Text
from mht.sources.hub import Hub

__all__ = [
    "CSV",
    "JSON",
    "Hub",
    "JSONLines",
    "OptionError",
    "Parquet",
    "Reviews",
    "Source",
    "Support",
    "Text",
    "source",
]
