"""The one definition of the text of a prompt, a target and a response, and of their tokens.

A response's text is what it adds to the decoded prompt. A target's tokens are those that it adds to
the prompt's when both are tokenised as one text. Control tokens come from the tokenizer and its
chat template alone, never from the data (`mht.data.text.control`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mht.core.errors import DataError
from mht.data.text.chat import render
from mht.data.text.control import Marks, check_text, private_backend
from mht.data.text.pieces import Pieces
from mht.data.text.special import control_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

UNKNOWN = "\ufffd"  # stands for bytes that are no character
MOST_HEADS = 1000  # decoded prompts that are kept: each is answered several times
# texts that a part of a target is tokenised behind, where the prompt's own end swallows it
ANCHORS = ("", "\n", ".", "(", "x", "0")


@dataclass(frozen=True)
class Read:
    """A prompt as the model reads it.

    Attributes:
        text: the whole, control tokens of a chat template by private names.
        ids: its tokens, BOS included where the tokenizer or the template gives one.
        templated: a chat template has written it.
    """

    text: str
    ids: list[int]
    templated: bool = False


class Codec:
    """Texts to tokens and back, for one tokenizer.

    Args:
        tokenizer: the model's, with its PAD and its chat template.
        ends: every id that ends a response (`special.end_ids`); the tokenizer's EOS is
            one of them anyway.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: Iterable[int] = ()):
        self.tokenizer = tokenizer
        own = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        self._ends = set(ends)
        self._dropped = self._ends | {i for i in own if i is not None}
        self._heads: dict[tuple[int, ...], str] = {}

    @cached_property
    def control(self) -> dict[str, int]:
        """The control tokens with their ids."""
        return control_tokens(self.tokenizer, self._ends)

    @cached_property
    def _marks(self) -> Marks:
        return Marks(self.control)

    @cached_property
    def _backend(self) -> Tokenizer | Pieces:
        fast = getattr(self.tokenizer, "backend_tokenizer", None) is not None
        if fast:
            return private_backend(self.tokenizer, self.control)
        return Pieces(self.tokenizer, self.control)

    # -- texts to tokens ----------------------------------------------------------------------

    def read_text(self, text: str) -> Read:
        """A prompt that the model continues as it stands."""
        check_text(text)
        return Read(text, self._encode(text, is_whole=True)[0])

    def read_chat(self, messages: Sequence[Mapping[str, Any]]) -> Read:
        """A conversation in the chat template, with the header of the answer.

        Raises:
            ModelError: the template refuses it.
        """
        hidden = [{**self._marks.hide(m), "role": m["role"]} for m in messages]
        text = self._marks.restore(render(self.tokenizer, hidden))
        return Read(text, self._encode(text, is_whole=False)[0], templated=True)

    def target_ids(self, read: Read, target: str) -> list[int]:
        """The tokens of a target behind a prompt, without EOS.

        Prompt and target are tokenised as one text and cut where the target begins. Where a token
        reaches over that seam, the prompt keeps its own tokens, as in sampling. The target's part
        of that token is tokenised by itself, so that the decoded whole stays the text.
        """
        check_text(target)
        ids, starts = self._encode(read.text + target, is_whole=not read.templated)
        if ids[: len(read.ids)] == read.ids:
            return ids[len(read.ids) :]
        whole, first = self.decode(ids), None
        for found in self._behind_the_seam(read, target, ids, starts):
            first = found if first is None else first
            if self.decode([*read.ids, *found]) == whole:
                return found
        return first or []

    def _behind_the_seam(
        self, read: Read, target: str, ids: list[int], starts: Sequence[int]
    ) -> Iterator[list[int]]:
        """What the target's tokens may be where a token of the whole reaches over the seam."""
        seam = len(read.text)
        later = [i for i, start in enumerate(starts) if start >= seam]
        first = later[0] if later else len(ids)
        inside = target[: starts[first] - seam] if later else target
        for part, rest in ((inside, ids[first:]), (target, [])):
            for anchor in ANCHORS:
                alone, found = (self._encode(t, is_whole=False)[0] for t in (anchor, anchor + part))
                if found[: len(alone)] == alone:
                    yield [*found[len(alone) :], *rest]

    def content_starts(self, text: str) -> Sequence[int]:
        """Where each token of a text begins, in characters."""
        check_text(text)
        return self._encode(text, is_whole=False)[1]

    def _encode(self, text: str, *, is_whole: bool) -> tuple[list[int], list[int]]:
        """Tokens and where each begins; a whole text gets the tokenizer's BOS, but no EOS."""
        try:
            found = self._backend.encode(text, add_special_tokens=is_whole)
        except Exception as error:
            if type(error) is not Exception:  # which is what backends raise
                raise
            raise DataError(f"the tokenizer can't encode {text[:60]!r}: {error}") from None
        ids, placed, end = list(found.ids), found.special_tokens_mask, len(found.ids)
        opening = 1 if ids[:1] == [self.tokenizer.bos_token_id] else 0
        while end > opening and placed[end - 1]:  # some append EOS; more text follows
            end -= 1
        return ids[:end], [start for start, _ in found.offsets[:end]]

    # -- tokens to texts ----------------------------------------------------------------------

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens: only BOS, PAD and what ends a response are left out."""
        kept = [i for i in ids if i not in self._dropped]
        return self.tokenizer.decode(
            kept,
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
            spaces_between_special_tokens=False,
        )

    def response_text(self, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> str:
        """What a response adds to its decoded prompt.

        A character whose first bytes are the prompt's last tokens is the response's.

        Args:
            prompt_ids: without padding.
            response_ids: without padding.
        """
        key = tuple(prompt_ids)
        if key not in self._heads:
            if len(self._heads) >= MOST_HEADS:
                self._heads.clear()
            self._heads[key] = self.decode(key)
        return _added(self._heads[key], self.decode([*prompt_ids, *response_ids]))


def _added(head: str, whole: str) -> str:
    """What a decoded text has behind its decoded beginning."""
    at = _shared(head, whole)
    rest, lost = whole[at:], head[at:]
    spoilt = UNKNOWN * len(lost.encode())  # by a byte behind them that completes no character
    return rest.removeprefix(spoilt) if UNKNOWN not in lost else rest


def _shared(first: str, second: str) -> int:
    """How many characters two texts have in common at their beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
