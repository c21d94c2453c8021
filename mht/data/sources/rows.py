"""A record of anybody's table as a row of the pipeline, by its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mht.core.errors import DataError
from mht.data.sources.cells import (
    has_half,
    is_missing,
    plain,
    read_label,
    read_rating,
    read_text_cell,
)
from mht.data.sources.conversations import Turn, is_conversation, read_hh, read_turns, split_answer
from mht.data.sources.shown import quoted, shown
from mht.data.text.turns import PROMPT_ROLE, TURNS

Row = dict[str, Any]
PARTS = {"input": "prompt"}  # a role that is part of another


@dataclass(frozen=True)
class ColumnMap:
    """Which column is what, for every record of a table.

    Attributes:
        roles: role to column, as `Columns` has the roles.
        guessed: the roles whose columns nobody named.
        moved: columns called like a key that MHT keeps in ``item``, with their name there.
        rating_range: the worst and the best rating in the data.
    """

    roles: Mapping[str, str]
    guessed: frozenset[str] = frozenset()
    moved: Mapping[str, str] = field(default_factory=dict)
    rating_range: tuple[float, float] = (-4.0, 4.0)

    def describe(self) -> str:
        """What is read from where, in one line.

        >>> ColumnMap({"prompt": "instruction", "input": "input", "target": "output"}).describe()
        "reads prompt from 'instruction' + 'input', target from 'output'"
        """
        parts: dict[str, str] = {}
        for role, column in self.roles.items():
            whole, name = PARTS.get(role, role), quoted(column)
            parts[whole] = f"{parts[whole]} + {name}" if whole in parts else name
        text = "reads " + ", ".join(f"{role} from {column}" for role, column in parts.items())
        kept = [f"{old!r} is item[{new!r}]" for old, new in sorted(self.moved.items())]
        return f"{text}; your column " + ", ".join(kept) if kept else text

    @property
    def is_worth_telling(self) -> bool:
        """Whether a column was guessed by another name than its role's, or has a new name."""
        return bool(self.moved) or any(self.roles[role] != role for role in self.guessed)

    def to_row(self, record: Mapping[str, Any], where: str) -> Row:
        """The record as a row; see `mht.data.sources.Source.rows`.

        Args:
            record: column to value.
            where: its place, such as "reviews.csv:7", for messages.

        Raises:
            DataError: a cell is not what it should be.
        """
        record = {str(key): plain(value) for key, value in record.items()}
        _check_there(where, record, self.roles)
        _check_halves(where, record)
        row, before = self._texts(where, record)
        taken = {column for role, column in self.roles.items() if role != "label"}
        item = {self.moved.get(k, k): v for k, v in record.items() if k not in taken}
        if before:
            *earlier, last = before
            row = {"prompt": last["content"], **row}
            item |= {TURNS: earlier} if earlier else {}
            item |= {PROMPT_ROLE: last["role"]} if last["role"] != "user" else {}
        row |= self._judgement(where, record)
        return {**row, "item": item} if item else row

    def _texts(self, where: str, record: Mapping[str, Any]) -> tuple[Row, list[Turn]]:
        """The row's texts, and the turns that end with its prompt where it is a conversation."""
        cells = _Cells(where, record, self.roles)
        if "text" in self.roles:
            return {"text": cells.text("text")}, []
        if "messages" in self.roles:
            turns = [] if is_missing(cells.value("messages")) else cells.turns("messages")
            before, answer = split_answer(turns)
            return {"target": answer} if before else {"prompt": "", "target": answer}, before
        if "rejected" in self.roles:
            return _two_answers(cells)
        return _prompt_and_target(cells)

    def _judgement(self, where: str, record: Mapping[str, Any]) -> Row:
        found: Row = {}
        if "rating" in self.roles:
            column = self.roles["rating"]
            value = record.get(column)
            found["rating"] = read_rating(where, column, value, self.rating_range)
        if "label" in self.roles:
            column = self.roles["label"]
            value = record.get(column)
            label = read_label(value)
            if label is None and "label" not in self.guessed and not isinstance(value, str | None):
                raise DataError(
                    f"{where}: column {quoted(column)} (label) should be a text or a whole "
                    f"number, got {shown(value)}"
                )
            found |= {"label": label} if label else {}
        return found


@dataclass(frozen=True)
class _Cells:
    """The cells of one record by their roles."""

    where: str
    record: Mapping[str, Any]
    roles: Mapping[str, str]

    def __contains__(self, role: str) -> bool:
        return role in self.roles

    def value(self, role: str) -> Any:
        return self.record.get(self.roles[role])

    def text(self, role: str) -> str:
        return read_text_cell(self.where, self.roles[role], self.value(role))

    def turns(self, role: str) -> list[Turn]:
        return read_turns(self.where, self.roles[role], self.value(role))

    def is_conversation(self, role: str) -> bool:
        return is_conversation(self.value(role))

    def error(self, role: str, what: str) -> DataError:
        return DataError(f"{self.where}: column {quoted(self.roles[role])}: {what}")


def _check_there(where: str, record: Mapping[str, Any], roles: Mapping[str, str]) -> None:
    for role, column in roles.items():
        if role not in ("rating", "label", "input") and column not in record:
            raise DataError(f"{where}: the column {quoted(column)} ({role}) is missing")


def _check_halves(where: str, record: Mapping[str, Any]) -> None:
    for column, value in record.items():
        if has_half(column) or has_half(value):
            raise DataError(
                f"{where}: column {quoted(column)} holds half of a surrogate pair, which is "
                f"no character: {shown(value)}: write the whole emoji, or take it out"
            )


def _prompt_and_target(cells: _Cells) -> tuple[Row, list[Turn]]:
    answer = _answer(cells, "target") if cells.is_conversation("target") else None
    if answer is None:
        target, more = cells.text("target"), []
    else:
        *more, last = answer
        target = last["content"]
    prompt, before = _prompt(cells, ends=not more)
    if more and not before:
        before = [{"role": "user", "content": prompt}] if prompt else []
    return ({"target": target} if before or more else {"prompt": prompt, "target": target}), [
        *before,
        *more,
    ]


def _prompt(cells: _Cells, *, ends: bool = True) -> tuple[str, list[Turn]]:
    """The prompt as a text, or as turns where it is a conversation."""
    if not cells.is_conversation("prompt"):
        parts = [cells.text(role) for role in ("prompt", "input") if role in cells]
        return "\n\n".join(part for part in parts if part.strip()) or parts[0], []
    turns = cells.turns("prompt")
    if not turns or (ends and turns[-1]["role"] not in ("user", "tool")):
        raise cells.error("prompt", "a conversation must end with the user")
    return turns[-1]["content"], turns


def _answer(cells: _Cells, role: str) -> list[Turn]:
    """The turns of an answer; the last one is the assistant's."""
    turns = cells.turns(role)
    if not turns or turns[-1]["role"] != "assistant":
        raise cells.error(role, "an answer must end with the assistant")
    return turns


def _two_answers(cells: _Cells) -> tuple[Row, list[Turn]]:
    """``target`` (the chosen one) and ``rejected``, and the turns that both answer."""
    answers = {role: _one_answer(cells, role) for role in ("chosen", "rejected")}
    row = {"target": answers["chosen"][-1]["content"]}
    row["rejected"] = answers["rejected"][-1]["content"]
    histories = [answer[:-1] for answer in answers.values()]
    shared = max(histories, key=len)
    if "prompt" in cells:
        prompt, before = _prompt(cells)
        if not _goes_on(shared, prompt, before) or not _agree(histories):
            return ({} if before else {"prompt": prompt}) | row, before
    elif not _agree(histories):
        raise cells.error(
            "rejected",
            "its turns before the last answer are not those of the chosen one: MHT compares "
            "two answers to the same prompt",
        )
    return row if shared else {"prompt": "", **row}, shared


def _agree(histories: list[list[Turn]]) -> bool:
    """Whether both answers follow the same turns; an answer without any follows all."""
    first, second = histories
    return not first or not second or first == second


def _goes_on(shared: list[Turn], prompt: str, before: list[Turn]) -> bool:
    """Whether the turns before the answers say more than the prompt of its own does."""
    if before:
        return shared[: len(before)] == before
    return any(t["role"] == "user" and t["content"].strip() == prompt.strip() for t in shared)


def _one_answer(cells: _Cells, role: str) -> list[Turn]:
    """An answer with the turns before it: a conversation, a text of HH-RLHF, or a text alone."""
    if cells.is_conversation(role):
        return _answer(cells, role)
    turns = None if "prompt" in cells else read_hh(cells.value(role))
    return turns or [{"role": "assistant", "content": cells.text(role)}]
