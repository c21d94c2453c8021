"""Where rows of text come from: bundled corpora, local files, hub data sets."""

from mht.data.sources.base import OptionError, Source, source
from mht.data.sources.columns import Columns
from mht.data.sources.files import Text
from mht.data.sources.table import read_records

__all__ = ["Columns", "OptionError", "Source", "Text", "read_records", "source"]
