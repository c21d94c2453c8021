"""An n-gram language model over token ids: interpolated Kneser-Ney smoothing.

A Markov model of order n - 1, counted from the training text in a second. It is a baseline for
neural models, and a cheap proposal for MCMC.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mht.core.errors import UserError

START = -1  # stands before every text, as often as the context is long


@dataclass(frozen=True)
class NGram:
    """``P(token | last order - 1 tokens)``, never 0.

    Each order takes ``discount`` off every count and gives what it took to the next lower order
    (Kneser & Ney 1995). The orders are interpolated as in Chen & Goodman 1999,
    doi:10.1006/csla.1999.0128, with one discount for all counts. An order below the highest counts
    in how many different contexts a token was seen, not how often. Below the lowest all tokens are
    equal, so those that were never seen share what the lowest gives away.

    Attributes:
        order: n: tokens in an n-gram, the predicted one included.
        vocabulary: number of token ids.
        discount: in (0, 1).
        counts: of the orders 1 to n: context (the lowest has the empty one) to token to count.
    """

    order: int
    vocabulary: int
    discount: float
    counts: Sequence[dict[tuple[int, ...], Counter[int]]]

    @classmethod
    def fit(
        cls,
        texts: Iterable[Sequence[int]],
        *,
        vocabulary: int,
        order: int = 3,
        discount: float = 0.75,
    ) -> NGram:
        """Count texts.

        Args:
            texts: token ids; EOS is a token like any other.
            vocabulary: number of token ids.
            order: n.
            discount: what each count loses.

        Raises:
            UserError: an order below 1, a discount outside (0, 1), or no text.
        """
        if order < 1 or not 0 < discount < 1:
            raise UserError(
                "an n-gram model needs an order of at least 1 and a discount between 0 and 1; got "
                f"{order} and {discount}"
            )
        grams = Counter(gram for text in texts for gram in _grams(text, order))
        if not grams:
            raise UserError("an n-gram model needs texts to count: there is no token in these")
        counts = []
        for _ in range(order):
            table: dict[tuple[int, ...], Counter[int]] = {}
            for gram, count in grams.items():
                table.setdefault(gram[:-1], Counter())[gram[-1]] = count
            counts.append(table)
            grams = Counter(gram[1:] for gram in grams)  # each kind once: by how many contexts
        return cls(order, vocabulary, discount, counts[::-1])

    def context(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """What the next token depends on: the last order - 1 of these, START before the first."""
        return self._keys(tokens)[-1]

    def probabilities(self, context: Sequence[int]) -> Tensor:
        """(V,) float64 of the next token; the last order - 1 tokens of the context count."""
        found = torch.full((self.vocabulary,), 1 / self.vocabulary, dtype=torch.float64)
        for (tokens, values), left in self._levels(context):
            found *= left
            found[tokens] += values
        return found

    def logprobs(self, tokens: Sequence[int], start: int = 0) -> list[float]:
        """Nats of each token from the ``start``-th on, given all before it."""
        return [
            math.log(self._probability(tokens[:i], tokens[i])) for i in range(start, len(tokens))
        ]

    def perplexity(self, texts: Iterable[Sequence[int]]) -> float:
        """``exp`` of the mean nats that a token of these texts costs."""
        nats = [-x for text in texts for x in self.logprobs(text)]
        return math.exp(sum(nats) / len(nats))

    def _probability(self, context: Sequence[int], token: int) -> float:
        found = 1 / self.vocabulary
        for table, key in zip(self.counts, self._keys(context), strict=True):
            seen = table.get(key)
            if seen is not None:
                total = self._totals[key]
                own = max(seen[token] - self.discount, 0) if token in seen else 0.0
                found = (own + self.discount * len(seen) * found) / total
        return found

    def _levels(self, context: Sequence[int]) -> Iterable[tuple[tuple[Tensor, Tensor], float]]:
        """What each order that knows the context adds to which tokens, and leaves of the lower."""
        for table, key in zip(self.counts, self._keys(context), strict=True):
            seen = table.get(key)
            if seen is not None:
                total = self._totals[key]
                values = torch.tensor(list(seen.values()), dtype=torch.float64)
                tokens = torch.tensor(list(seen))
                yield (
                    (tokens, (values - self.discount) / total),
                    self.discount * len(seen) / total,
                )

    def _keys(self, context: Sequence[int]) -> list[tuple[int, ...]]:
        """The context as each order from the lowest on sees it."""
        longest = self.order - 1
        padded = (*[START] * longest, *context[len(context) - min(longest, len(context)) :])
        return [padded[len(padded) - length :] for length in range(self.order)]

    @cached_property
    def _totals(self) -> dict[tuple[int, ...], int]:
        return {key: seen.total() for table in self.counts for key, seen in table.items()}


def _grams(text: Sequence[int], order: int) -> Iterable[tuple[int, ...]]:
    padded = (*[START] * (order - 1), *text)
    return (padded[i : i + order] for i in range(len(text)))
