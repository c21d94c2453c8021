"""Responses that begin with a part of their target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mht.data.examples.example import Example


@dataclass(frozen=True)
class Hinted:
    """Examples whose prompts end with the first tokens of their targets.

    Attributes:
        examples: B of them; those without a hint are as they were.
        lengths: B numbers of tokens of the target at the prompts' ends; None is 0 everywhere.
    """

    examples: Sequence[Example]
    lengths: Sequence[int] | None = None

    @property
    def free(self) -> list[int]:
        """The numbers of the rows without a hint."""
        lengths = self.lengths or [0] * len(self.examples)
        return [row for row, length in enumerate(lengths) if not length]

    @property
    def figures(self) -> dict[str, float]:
        """Mean length of the hints and the share of rows with a hint; empty without hints."""
        if self.lengths is None:
            return {}
        count = len(self.lengths)
        return {
            "hint/length_tokens": sum(self.lengths) / count,
            "hint/rows_share": 1 - len(self.free) / count,
        }


def with_hints(examples: Sequence[Example], shares: Sequence[float] | None) -> Hinted:
    """The examples with the first tokens of their targets at the ends of their prompts.

    Args:
        examples: B of them.
        shares: B shares of the targets' tokens, rounded down; the last token is never given, so
            that something is left to write. None gives no hint.
    """
    if shares is None:
        return Hinted(examples)
    lengths = [
        max(min(int(share * len(e.target_ids)), len(e.target_ids) - 1), 0)
        for e, share in zip(examples, shares, strict=True)
    ]
    longer = [
        replace(e, prompt_ids=[*e.prompt_ids, *e.target_ids[:length]])
        for e, length in zip(examples, lengths, strict=True)
    ]
    return Hinted(longer, lengths)
