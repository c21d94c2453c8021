"""Rows of anybody's table as rows of the pipeline: which column is what, and checks on each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field, model_validator

from mht.component import Section, did_you_mean
from mht.errors import DataError
from mht.sources.base import OptionError, Source

Record = Mapping[str, Any]
Located = tuple[str, Record]  # where it stands, such as "reviews.csv:7", and the record


class Columns(Section):
    """Which of the table's columns is what.

    Attributes:
        text: a text that is cut into prompt and target.
        prompt: what the model is given; a string, or a conversation as a list of
            ``{"role", "content"}`` that ends with the user.
        target: the answer to it.
        rating: how good the text is, for the reward model.
        label: the class that the text is of, for the reward model; a text or a whole number, which
            stays in ``item`` too.
        chosen: the better of two answers, which is the target too; a string, or a conversation
            that ends with the assistant.
        rejected: the worse one.
    """

    text: str | None = None
    prompt: str | None = None
    target: str | None = None
    rating: str | None = None
    label: str | None = None
    chosen: str | None = None
    rejected: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Columns:
        if self.text and (self.prompt or self.target):
            raise ValueError("give text, or prompt and target, not both")
        if (self.chosen or self.rejected) and (self.text or self.target):
            raise ValueError("chosen and rejected are two answers: give neither text nor target")
        if sum(map(bool, (self.rating, self.label, self.rejected))) > 1:
            raise ValueError("give rating, or label, or chosen and rejected: one of them")
        return self


class TableSource(Source):
    """A source with columns of its own names.

    Attributes:
        columns: which column is what; unset ones are looked for under their own names. All other
            columns come along in ``item``.
        rating_range: the worst and the best rating in the data; mapped to -4 and 4.
    """

    columns: Columns = Columns()
    rating_range: list[float] = Field(default=[-4.0, 4.0], min_length=2, max_length=2)

    @model_validator(mode="after")
    def _range_is_one(self) -> TableSource:
        if self.rating_range[0] == self.rating_range[1]:
            raise ValueError(f"rating_range needs two different ends, got {self.rating_range}")
        return self

    def records(self) -> Iterable[Located]:
        """Every record of the table with where it stands."""
        raise NotImplementedError

    def place(self) -> str:
        """The table's name in messages."""
        raise NotImplementedError

    def rows(self) -> list[dict[str, Any]]:
        """Every record as a row; see `Source.rows`."""
        records = list(self.records())
        if not records:
            raise DataError(f"{self.place()}: holds no rows")
        columns = self._resolve(list(dict.fromkeys(k for _, record in records for k in record)))
        return [self._row(where, record, columns) for where, record in records]

    def _resolve(self, there: list[str]) -> dict[str, str]:
        """The columns of text, prompt and target, or two answers; of rating or label if any."""
        named = {k: v for k, v in self.columns.model_dump().items() if v}
        for role, column in named.items():
            if column not in there:
                raise OptionError(
                    f"columns.{role}",
                    f"{self.place()} has no column {column!r}{did_you_mean(column, there)}. "
                    f"It has: {', '.join(there)}",
                )
        if _compares(named, there):
            return self._comparison(named, there)
        if not {"rating", "label"} & set(named):
            judged = [role for role in ("rating", "label") if role in there]
            named |= {role: role for role in judged[:1]}
        if "text" in named:
            return named
        if "prompt" not in named and "target" not in named and "text" in there:
            return {**named, "text": "text"}
        pair = {role: named.get(role, role) for role in ("prompt", "target")}
        missing = [role for role, column in pair.items() if column not in there]
        if missing:
            raise OptionError(f"columns.{missing[0]}", self._say_which(missing, there))
        return {**named, **pair}

    def _comparison(self, named: dict[str, str], there: list[str]) -> dict[str, str]:
        named = {"chosen": "chosen", "rejected": "rejected", **named}
        for role in ("chosen", "rejected"):
            if named[role] not in there:
                what = f"{self.place()} has no column {role!r}; it has: {', '.join(there)}"
                raise OptionError(f"columns.{role}", what)
        return {**({"prompt": "prompt"} if "prompt" in there else {}), **named}

    def _say_which(self, missing: list[str], there: list[str]) -> str:
        wanted = "a 'text' column, or 'prompt' and 'target'" if len(missing) == 2 else missing[0]
        hint = next(filter(None, (did_you_mean(m, there) for m in (*missing, "text"))), "")
        return (
            f"{self.place()} needs {wanted}; it has: {', '.join(there)}{hint}. Say which is which "
            "with columns: {text: ...} or columns: {prompt: ..., target: ...}"
        )

    def _row(self, where: str, record: Record, columns: Mapping[str, str]) -> dict[str, Any]:
        for role in columns:
            if role not in ("rating", "label") and columns[role] not in record:
                raise DataError(f"{where}: the column {columns[role]!r} ({role}) is missing")
        taken = {column for role, column in columns.items() if role != "label"}
        item = {k: v for k, v in record.items() if k not in taken}
        row: dict[str, Any] = {}
        if "rejected" in columns:
            row, earlier = _two_answers(where, record, columns)
            item |= {"turns": earlier} if earlier else {}
        for role in ("text", "prompt", "target"):
            if role in columns:
                value = record[columns[role]]
                if role == "prompt" and isinstance(value, list):
                    value, item["turns"] = _conversation(where, columns[role], value)
                row[role] = _string(where, columns[role], value)
        if "rating" in columns:
            row["rating"] = self._rating(where, columns["rating"], record.get(columns["rating"]))
        label = _label(record.get(columns.get("label", "")))
        row |= {"label": label} if "label" in columns and label else {}
        return {**row, "item": item} if item else row

    def _rating(self, where: str, column: str, value: Any) -> float:
        low, high = self.rating_range
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise DataError(
                f"{where}: column {column!r} (rating) should be a number, got {value!r}"
            ) from None
        if not min(low, high) <= number <= max(low, high):  # also refuses nan
            raise DataError(
                f"{where}: rating {number:g} is outside rating_range [{low:g}, {high:g}]: set "
                "rating_range to the worst and the best rating in the data"
            )
        return -4 + 8 * (number - low) / (high - low)


def _compares(named: Mapping[str, str], there: list[str]) -> bool:
    """Whether the table holds pairs of answers: it says so, or it can't be anything else."""
    if {"chosen", "rejected"} & set(named):
        return True
    other = {"text", "target"} & {*named, *there}
    return not other and {"chosen", "rejected"} <= set(there)


def _two_answers(
    where: str, record: Record, columns: Mapping[str, str]
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """``prompt``, ``target`` (the chosen one) and ``rejected``, and the turns before the prompt."""
    row: dict[str, Any] = {"prompt": ""}
    earlier: list[dict[str, str]] = []
    for role, key in (("chosen", "target"), ("rejected", "rejected")):
        value = record[columns[role]]
        if isinstance(value, list):
            turns = _turns(where, columns[role], value)
            if not turns or turns[-1]["role"] != "assistant":
                raise DataError(
                    f"{where}: column {columns[role]!r}: an answer must end with the assistant"
                )
            value = turns[-1]["content"]
            if role == "chosen" and turns[:-1] and "prompt" not in columns:
                row["prompt"], earlier = _conversation(where, columns[role], turns[:-1])
        row[key] = _string(where, columns[role], value)
    return row, earlier


def _label(value: Any) -> str | None:
    """A class's name; None where the value is none, which `fetch` says of data.labels."""
    return (str(value).strip() or None) if isinstance(value, str | int) else None


def _string(where: str, column: str, value: Any) -> str:
    if value is None:
        return ""  # dropped, and counted, as an empty text in prepare
    if not isinstance(value, str):
        kind = type(value).__name__
        raise DataError(f"{where}: column {column!r} should be a string, got {value!r} ({kind})")
    return value


def _turns(where: str, column: str, turns: list[Any]) -> list[dict[str, str]]:
    for turn in turns:
        if not isinstance(turn, Mapping) or not {"role", "content"} <= set(turn):
            raise DataError(
                f"{where}: column {column!r}: a conversation is a list of "
                f'{{"role", "content"}}, got {turn!r}'
            )
    return [{k: _string(where, column, t[k]) for k in ("role", "content")} for t in turns]


def _conversation(where: str, column: str, turns: list[Any]) -> tuple[str, list[dict[str, str]]]:
    """The last user turn and the turns before it."""
    clean = _turns(where, column, turns)
    if not clean or clean[-1]["role"] != "user":
        raise DataError(f"{where}: column {column!r}: a conversation must end with the user")
    return clean[-1]["content"], clean[:-1]
