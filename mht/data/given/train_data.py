"""Training data as a library user has it, as examples: token ids, texts, chats, prepared ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mht.core.component import build
from mht.core.errors import DataError, UserError
from mht.data.examples.example import Example
from mht.data.examples.tokenize import cut_row, read
from mht.data.given.row_forms import rows_of
from mht.data.given.token_rows import IDS, is_token_row, token_examples
from mht.data.sources.base import OptionError
from mht.data.sources.table import Located, TableSource
from mht.data.text.texts import Codec

PROMPT_WORDS = 5  # of a text without a prompt of its own, as data.prompt_words
UNREAD: dict[str, str | None] = {"rating": None, "label": None}  # they stay in the item
Row = dict[str, Any]


class GivenTable(TableSource):
    """Rows in memory as a table with columns of its own names."""

    name: str
    given: list[Any]

    def records(self, *, head: bool = False) -> list[Located]:
        """Every row with its number."""
        return [(f"{self.name}[{number}]", row) for number, row in enumerate(self.given)]

    def place(self) -> str:
        """The argument's name."""
        return self.name


class TrainData:
    """Reads training data for one model.

    Args:
        codec: of its tokenizer.
        pad_id: the tokenizer's PAD.
        vocabulary: the model's token ids are below it.
        context: positions of the model; None has no limit.
        columns: which column is what, where the names do not say it.

    Raises:
        ConfigError: ``columns`` has something that is no role.

    Attributes:
        guess: what is worth saying of the columns; "" where there is nothing.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        pad_id: int | None,
        vocabulary: int,
        context: int | None,
        columns: Mapping[str, str] | None = None,
    ):
        self.codec, self.context = codec, context
        self.columns = UNREAD | dict(columns or {})
        self._table("train_data", [])  # a wrong role is an error before any row is read
        self.pad_id, self.vocabulary = pad_id, vocabulary
        self.guess = ""

    def read(self, data: Any, name: str = "train_data") -> list[Example]:
        """The examples of training data.

        Args:
            data: see `row_forms.rows_of`. Its rows are prepared examples, or dicts with
                ``input_ids`` and ``labels``, or with texts or chats under the field's usual names.
            name: of the argument, for messages.

        Raises:
            DataError: a row is not what it should be, with its number.
        """
        rows = rows_of(data, name)
        if all(isinstance(row, Example) for row in rows):
            return list(rows)
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                got = f"{row!r:.60} ({type(row).__name__})"
                raise DataError(f"{name}[{number}]: should be a dict of columns, got {got}")
        if any(is_token_row(row) for row in rows):
            return self._of_tokens(rows, name)
        return self._of_texts(rows, name)

    def _of_tokens(self, rows: Sequence[Mapping[str, Any]], name: str) -> list[Example]:
        examples: list[Example] = []
        for number, row in enumerate(rows):
            where = f"{name}[{number}]"
            if not is_token_row(row):
                raise DataError(f"{where}: lacks input_ids or labels, which other rows have")
            found = token_examples(
                row, where, self.codec, pad_id=self.pad_id, vocabulary=self.vocabulary
            )
            for example in found:
                self._check_length(example, where)
            examples += found
        return examples

    def _of_texts(self, rows: Sequence[Mapping[str, Any]], name: str) -> list[Example]:
        table, has_targets = self._rows(rows, name)
        examples, short = [], 0
        for number, row in enumerate(table):
            example = self._example(row, f"{name}[{number}]", has_target=has_targets)
            short += example is None
            examples += [] if example is None else [example]
        if short:
            what = f"{short} of {len(rows)} texts have no more than {PROMPT_WORDS} words"
            if not examples:
                raise DataError(f"{name}: {what}, which are the prompt: there is no target")
            warnings.warn(f"{name}: {what} and were left out", stacklevel=4)
        return examples

    def _table(self, name: str, rows: Sequence[Any]) -> GivenTable:
        data = {"name": name, "given": list(rows), "columns": self.columns}
        return build(GivenTable, data)

    def _rows(self, rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[Row], bool]:
        """The rows by their columns, and whether they have targets: prompts may be alone."""
        try:
            table = self._table(name, rows).read()
            self.guess = table.columns.describe() if table.columns.is_worth_telling else ""
            return table.rows, True
        except OptionError as error:
            if any(IDS in row for row in rows):
                what = "has input_ids but no labels: -100 where nothing is learnt"
                raise DataError(f"{name}: {what}") from None
            if error.option != "columns.target":
                raise DataError(error.message) from None
        self.guess = "has prompts and no targets: they serve PPO steps alone"
        return self._table(name, [{**row, "target": None} for row in rows]).rows(), False

    def _example(self, row: Mapping[str, Any], where: str, *, has_target: bool) -> Example | None:
        cut = cut_row(row, PROMPT_WORDS)
        needed = ("text",) if "text" in row else ("prompt", "target")[: 1 + has_target]
        empty = [part for part in needed if not row[part].strip()]
        if empty:
            raise DataError(f"{where}: its {empty[0]} is empty: give one, or take the row out")
        if "text" in row and not cut.target.strip():
            return None
        try:
            prompt = read(self.codec, cut)
            target = self.codec.target_ids(prompt, cut.target) if has_target else []
        except UserError as error:
            raise DataError(f"{where}: {error}") from None
        if has_target:
            target = [*target, self.codec.tokenizer.eos_token_id]
        kept = {k: row[k] for k in ("rating", "rejected") if k in row}
        item = {**row.get("item", {}), **kept}
        example = Example(
            cut.key[:16], cut.prompt, cut.target, prompt.ids, target, item, cut.joiner
        )
        self._check_length(example, where)
        return example

    def _check_length(self, example: Example, where: str) -> None:
        length = len(example.prompt_ids) + len(example.target_ids)
        if self.context is not None and length > self.context:
            raise DataError(
                f"{where}: prompt and target have {length} tokens, the model's context is "
                f"{self.context}: shorten them, or take the row out"
            )
