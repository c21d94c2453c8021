"""Encoding by a tokenizer without a backend: one that is written in Python."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mht.data.text.control import private_name

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoded:
    """Tokens as a fast tokenizer's backend gives them.

    Attributes:
        ids: the tokens.
        offsets: of each the part of the text, (start, end).
        special_tokens_mask: 1 where the tokenizer itself put a token.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    special_tokens_mask: list[int]


class Pieces:
    """Encodes the texts between control tokens one by one.

    Offsets are those of the pieces. No special token is recognised in them.

    Args:
        tokenizer: without a backend.
        control: its control tokens with their ids.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, control: Mapping[str, int]):
        self._tokenizer = tokenizer
        self._ids = {private_name(number): number for number in control.values()}
        self._pattern = re.compile("|".join(map(re.escape, self._ids)) or "(?!)")

    def encode(self, text: str, add_special_tokens: bool) -> Encoded:
        """The tokens of a text, on request with the tokenizer's own BOS and EOS around them."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        end = 0
        for found in [*self._pattern.finditer(text), None]:
            stop = found.start() if found else len(text)
            plain = self._plain(text[end:stop])
            token = [self._ids[found[0]]] if found else []
            end, start = (found.end() if found else stop), end
            ids += [*plain, *token]
            offsets += [(start, stop)] * len(plain) + [(stop, end)] * len(token)
        before, after = self._around() if add_special_tokens else ([], [])
        return Encoded(
            [*before, *ids, *after],
            [(0, 0)] * len(before) + offsets + [(0, 0)] * len(after),
            [1] * len(before) + [0] * len(ids) + [1] * len(after),
        )

    def _plain(self, text: str) -> list[int]:
        options = {"add_special_tokens": False, "split_special_tokens": True}
        return list(self._tokenizer(text, **options)["input_ids"]) if text else []

    def _around(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and behind a text."""
        whole = list(self._tokenizer("a")["input_ids"])
        inner = list(self._tokenizer("a", add_special_tokens=False)["input_ids"])
        at = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
        return whole[:at], whole[at + len(inner) :]
