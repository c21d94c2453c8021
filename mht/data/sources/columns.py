"""Which of a table's columns is what: as the settings say, or guessed by the names of the field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import model_validator

from mht.core.component import Section, did_you_mean
from mht.data.sources.base import OptionError
from mht.data.sources.conversations import is_conversation, read_hh
from mht.data.sources.rows import ColumnMap
from mht.data.sources.shown import listed, quoted
from mht.data.text.turns import PROMPT_ROLE, TURNS, is_turn

Record = Mapping[str, Any]
GUESS = ""  # a role that is looked for; null switches it off
ALIASES = {  # the first that is there, in any case, is the one
    "text": ("text", "content", "sentence", "document", "review"),
    "messages": ("messages", "conversations", "conversation"),
    "prompt": ("prompt", "instruction", "question", "query", "problem", "input"),
    "target": ("target", "completion", "response", "output", "answer", "solution"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "rating": ("rating",),
    "label": ("label",),
}
INPUTS = ("input", "context")  # the second part of a prompt that is called instruction


class Columns(Section):
    """Which of the table's columns is what; "" looks for it, null switches it off.

    Attributes:
        text: a text that is cut into prompt and target.
        messages: a conversation, as a list of ``{"role", "content"}`` or ``{"from", "value"}``; its
            last answer is the target, what is before it the prompt.
        prompt: what the model is given; a string, or a conversation that ends with the user.
        input: a second part of the prompt, put below it, such as Alpaca's ``input``.
        target: the answer to it; a string, or a conversation that ends with the assistant.
        rating: how good the text is, for the reward model.
        label: the class that the text is of, for the reward model; a text or a whole number, which
            stays in ``item`` too.
        chosen: the better of two answers, which is the target too; a string, or a conversation
            that ends with the assistant.
        rejected: the worse one.
    """

    text: str | None = GUESS
    messages: str | None = GUESS
    prompt: str | None = GUESS
    input: str | None = GUESS
    target: str | None = GUESS
    rating: str | None = GUESS
    label: str | None = GUESS
    chosen: str | None = GUESS
    rejected: str | None = GUESS

    @model_validator(mode="after")
    def _one_kind(self) -> Columns:
        if self.text and (self.prompt or self.target):
            raise ValueError("give text, or prompt and target, not both")
        if (self.chosen or self.rejected) and (self.text or self.target):
            raise ValueError("chosen and rejected are two answers: give neither text nor target")
        if self.messages and (self.text or self.prompt or self.target or self.chosen):
            raise ValueError("messages hold prompt and target: give no other column of texts")
        if self.input and not self.prompt:
            raise ValueError("input is a second part of the prompt: give prompt too")
        if sum(map(bool, (self.rating, self.label, self.rejected))) > 1:
            raise ValueError("give rating, or label, or chosen and rejected: one of them")
        return self

    def resolve(
        self,
        records: Sequence[Record],
        place: str,
        rating_range: tuple[float, float] = (-4.0, 4.0),
    ) -> ColumnMap:
        """The columns of these records, those that are not named guessed.

        Args:
            records: all of the table's.
            place: the table's name in messages.
            rating_range: the worst and the best rating in the data; mapped to -4 and 4.

        Raises:
            OptionError: a named column is not there, or no column can be a text.
        """
        there = list(dict.fromkeys(str(key) for record in records for key in record))
        named = {k: v for k, v in self.model_dump().items() if v}
        for role, column in named.items():
            if column not in there:
                raise OptionError(
                    f"columns.{role}",
                    f"{place} has no column {quoted(column)}{_near(column, there)}. "
                    f"It has: {listed(there)}",
                )
        off = {k for k, v in self.model_dump().items() if v is None}
        roles = _Guess(records, there, named, off, place).roles()
        return ColumnMap(
            roles, frozenset(set(roles) - set(named)), _moved(records, there, roles), rating_range
        )


class _Guess:
    """The search for the columns that are not named."""

    def __init__(
        self,
        records: Sequence[Record],
        there: Sequence[str],
        named: Mapping[str, str],
        off: set[str],
        place: str,
    ):
        self.records, self.there, self.place = records, there, place
        self.named: dict[str, str] = dict(named)
        free = [name for name in there if name not in named.values()]
        self.found: dict[str, str] = {
            role: column
            for role, names in ALIASES.items()
            if role not in off and role not in named and (column := _first(names, free))
        }
        self.inputs = None if "input" in off else _first(INPUTS, free)

    def roles(self) -> dict[str, str]:
        """The column of each role of the table."""
        if self._compares():
            return self._comparison()
        judged = [role for role in ("rating", "label") if role in self.found]
        if {"rating", "label"} & set(self.named):
            judged = []
        return {**self._texts(), **{role: self.found[role] for role in judged[:1]}}

    def _texts(self) -> dict[str, str]:
        named, found = self.named, self.found
        if "text" in named or "messages" in named:
            return named
        either = {role: found[role] for role in ("prompt", "target") if role in found}
        pair = either | named
        if "prompt" in named or "target" in named:
            return self._pair(pair)
        if self._holds_messages():
            return {**named, "messages": found["messages"]}
        if {"prompt", "target"} <= set(pair):
            return self._pair(pair)
        if "text" in found:
            return {**named, "text": found["text"]}
        if "messages" in found and not pair:
            return {**named, "messages": found["messages"]}  # its rows say what is wrong
        return self._pair(pair)

    def _pair(self, pair: dict[str, str]) -> dict[str, str]:
        missing = [role for role in ("prompt", "target") if role not in pair]
        if missing:
            raise self._unknown(missing)
        instructs = pair["prompt"].casefold() == "instruction" and "prompt" not in self.named
        if instructs and self.inputs:
            return {**pair, "input": self.inputs}
        return pair

    def _holds_messages(self) -> bool:
        column = self.found.get("messages")
        values = (record.get(column) for record in self.records) if column else ()
        first = next((value for value in values if value is not None), None)
        return first is not None and not isinstance(first, str | int | float)

    def _compares(self) -> bool:
        """Whether the table holds pairs of answers: it says so, or it can't be anything else."""
        if {"chosen", "rejected"} & set(self.named):
            return True
        other = {"text", "target", "messages"} & set(self.named)
        other |= {"text", "target"} & set(self.there)
        return not other and {"chosen", "rejected"} <= set(self.found)

    def _comparison(self) -> dict[str, str]:
        answers = {r: self.found[r] for r in ("chosen", "rejected") if r in self.found}
        roles = answers | self.named
        for role in ("chosen", "rejected"):
            if role not in roles:
                what = f"{self.place} has no column {role!r}; it has: {listed(self.there)}"
                raise OptionError(f"columns.{role}", what)
        prompt = {"prompt": self.found["prompt"]} if "prompt" in self.found else {}
        return {**prompt, **roles}

    def _unknown(self, missing: Sequence[str]) -> OptionError:
        there = self.there
        if len(there) == 1 and (split := next((d for d in ";\t|" if d in there[0]), None)):
            return OptionError(
                "delimiter",
                f"{self.place} has one column, {quoted(there[0])}: set delimiter to {split!r}",
            )
        wanted = "a 'text' column, or 'prompt' and 'target'" if len(missing) == 2 else missing[0]
        hint = next(filter(None, (_near(m, there) for m in (*missing, "text"))), "")
        return OptionError(
            f"columns.{missing[0]}",
            f"{self.place} needs {wanted}; it has: {listed(there)}{hint}. Say which is which "
            "with columns: {text: ...} or columns: {prompt: ..., target: ...}",
        )


def _near(wanted: str, there: Iterable[str]) -> str:
    return did_you_mean(wanted, [name for name in there if len(name) < 100][:1000])


def _first(names: Iterable[str], there: Sequence[str]) -> str | None:
    """The column with the first of these names; the name as it is before the name in capitals."""
    for name in names:
        if name in there:
            return name
        close = [column for column in there if column.strip().casefold() == name]
        if close:
            return close[0]
    return None


def _moved(
    records: Sequence[Record], there: Sequence[str], roles: Mapping[str, str]
) -> dict[str, str]:
    """Columns that are called like a key of ours in ``item``, with the name that they get there."""
    taken = {role for role in ("rating", "rejected") if role in roles}
    if TURNS in there and _has_turns(records, roles):
        taken |= {TURNS}
    taken |= {PROMPT_ROLE}
    moved: dict[str, str] = {}
    for name in taken & set(there) - set(roles.values()):
        new = f"{name}_column"
        while new in there:
            new += "_"
        moved[name] = new
    return moved


def _has_turns(records: Sequence[Record], roles: Mapping[str, str]) -> bool:
    """Whether ``item["turns"]`` will hold a conversation, or a column that looks like one."""
    texts = [c for role, c in roles.items() if role not in ("rating", "label", "text")]
    return any(
        _looks_like_turns(record.get(TURNS))
        or any(is_conversation(record.get(c)) or read_hh(record.get(c)) for c in texts)
        for record in records
    )


def _looks_like_turns(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(map(is_turn, value))
