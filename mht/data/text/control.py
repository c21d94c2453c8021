"""Control tokens: the ids that the tokenizer, its chat template and MHT place, and data never does.

A copy of the tokenizer's backend has each of them under a private name alone. The text "<s>" in a
row of the data is then three characters, whether "<s>" is an added token or a vocabulary piece.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mht.core.errors import DataError, ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# U+FDD0 to U+FDEF are no characters: Unicode keeps them for the inside of programs
PRIVATE = re.compile("[\ufdd0\ufdd2]([0-9]+)\ufdd1")
HIDDEN = re.compile("\ufdd2([0-9]+)\ufdd1")


def private_backend(tokenizer: Any, tokens: Mapping[str, int]) -> Tokenizer:
    """The tokenizer's backend with the control tokens under their private names.

    Every id is what it was, and offsets count leading spaces in.

    Args:
        tokenizer: a fast one.
        tokens: its control tokens with their ids.

    Raises:
        ModelError: the backend would give one of them another id.
    """
    from tokenizers import Tokenizer

    names = {token: private_name(number) for token, number in tokens.items()}
    data = json.loads(tokenizer.backend_tokenizer.to_str(), object_hook=_exact_offsets)
    data["truncation"] = data["padding"] = None
    for token in data["added_tokens"]:
        if token["content"] in names:
            token |= {"content": names[token["content"]], "normalized": False}
    _rename(data["model"], names)
    backend = Tokenizer.from_str(json.dumps(data))
    for token, number in tokens.items():
        if backend.token_to_id(names[token]) != number:
            raise ModelError(f"the tokenizer's {token!r} has no id of its own: MHT can't use it")
    return backend


def _exact_offsets(part: dict[str, Any]) -> dict[str, Any]:
    return part | {"trim_offsets": False} if "trim_offsets" in part else part


def _rename(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """Rename pieces of a backend's vocabulary, and forget the merges that make them of text."""
    vocab = model["vocab"]
    if isinstance(vocab, Mapping):
        model["vocab"] = {names.get(piece, piece): i for piece, i in vocab.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocab]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        pairs = [m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"]]
        model["merges"] = [p for p in pairs if not {*p, "".join(p)} & names.keys()]


def private_name(number: int) -> str:
    """How a control token with this id is written where the template writes it."""
    return f"\ufdd0{number}\ufdd1"


class Marks:
    """Control tokens in texts: those of the data told from those of the chat template.

    Args:
        tokens: the control tokens with their ids.
    """

    def __init__(self, tokens: Mapping[str, int]):
        self._ids = dict(tokens)
        self._tokens = {number: token for token, number in tokens.items()}
        longest_first = sorted(tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def hide(self, value: Any) -> Any:
        """The data's strings (of a text, a list or a mapping) with its control tokens set aside."""
        if isinstance(value, str):
            check_text(value)
            return self._pattern.sub(lambda m: f"\ufdd2{self._ids[m[0]]}\ufdd1", value)
        if isinstance(value, Mapping):
            return {key: self.hide(part) for key, part in value.items()}
        return [self.hide(part) for part in value] if isinstance(value, list | tuple) else value

    def restore(self, rendered: str) -> str:
        """A rendered text: the template's tokens by private name, the data's as they were."""
        named = self._pattern.sub(lambda m: private_name(self._ids[m[0]]), rendered)
        return HIDDEN.sub(lambda m: self._tokens[int(m[1])], named)


def check_text(text: str) -> None:
    """Refuse a text that holds what stands for a control token.

    Raises:
        DataError: it does.
    """
    if found := PRIVATE.search(text):
        raise DataError(f"a text holds {found[0]!r}, which MHT keeps for control tokens: remove it")
