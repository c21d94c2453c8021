"""A data set of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mht.core.errors import DataError, first_line
from mht.data.sources.base import OptionError, asset_entry, source
from mht.data.sources.table import Located, TableSource


@source("hub")
class Hub(TableSource):
    """A data set of the Hugging Face hub, or a folder in its layout.

    Attributes:
        name: of the data set, such as "stanfordnlp/imdb".
        config: its configuration, where it has several.
        split: which of its splits, in the library's own notation ("train[:1000]").
        revision: the commit to pin; without one the newest is taken.
    """

    name: Annotated[str, Field(min_length=1)]
    config: str | None = None
    split: str = "train"
    revision: str | None = None

    def place(self) -> str:
        """The data set's name."""
        return self.name

    def records(self, *, head: bool = False) -> Iterator[Located]:
        """Each record with its row number, from 1."""
        self._look_up()
        rows = iter(self._load())
        for number in count(1):
            where = f"{self.name}: row {number}"
            try:
                record = next(rows)
            except StopIteration:
                return
            except Exception as error:  # the library alone runs here: a picture without Pillow...
                raise DataError(f"{where}: can't be read: {first_line(error)}") from None
            yield where, record

    def _look_up(self) -> None:
        """Ask the hub for it once: `load_dataset` tries for half a minute without a network."""
        from huggingface_hub import HfApi, constants
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        if constants.is_offline_mode() or Path(self.name).is_dir():
            return
        try:
            HfApi().dataset_info(self.name, revision=self.revision, timeout=20)
        except HfHubHTTPError as error:
            raise OptionError(
                "name", f"the hub has no {self.name!r} for you: {first_line(error)}"
            ) from None
        except HFValidationError as error:
            raise OptionError(
                "name",
                f"{self.name!r} is neither a folder nor a name of the hub: {first_line(error)}",
            ) from None
        except Exception as error:  # of the network in any form, or of a wrong HF_ENDPOINT
            raise OptionError(
                "name",
                f"can't reach the hub for {self.name!r} ({first_line(error)}): connect, set "
                "HF_HUB_OFFLINE=1 if it was loaded here before, or use a local file",
            ) from None

    def _load(self) -> Any:
        from datasets import load_dataset

        print(f"loading {self.name} ({self.split})", flush=True)
        try:
            return load_dataset(self.name, self.config, split=self.split, revision=self.revision)
        except Exception as error:  # the library has errors of ten packages for files and splits
            raise OptionError("name", f"{self.name!r}: {first_line(_first_cause(error))}") from None

    def asset(self) -> dict[str, Any]:
        """The entry of ``assets.json``."""
        source = f"hub data set, split {self.split}"
        version = self.revision or "the newest when fetched"
        return asset_entry(self.name, source, "see the data set's page", version=version)


def _first_cause(error: Exception) -> Exception:
    """The error that says which file is wrong, below "An error occurred while generating"."""
    cause = error.__cause__
    return cause if isinstance(cause, Exception) else error
