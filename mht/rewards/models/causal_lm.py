"""A causal language model that scores texts in batches: what perplexity, fluency, judges share."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from mht.data.text.special import broken_up
from mht.data.text.truncation import token_limit, valid_unicode
from mht.rewards.models.shared import batches, load, pretrained, quiet

TOKENS = 4096  # per forward pass, padding included
SAMPLED = (64, 32)  # texts and tokens of each, for the marginal


@dataclass(frozen=True)
class Window:
    """A stretch of one text's tokens; its last ``scored`` tokens are to be scored."""

    text: int
    ids: list[int]
    scored: int


class Loss(NamedTuple):
    """What a text's tokens cost.

    Attributes:
        nats: the sum of ``-log p(token | those before it)`` over the scored tokens.
        ids: the scored tokens.
    """

    nats: float
    ids: list[int]


def windows(text: int, ids: list[int], stride: int, max_length: int) -> list[Window]:
    """The overlapping windows that score every token but the first, once each.

    >>> [(w.ids, w.scored) for w in windows(0, [1, 2, 3, 4, 5], stride=2, max_length=3)]
    [([1, 2, 3], 2), ([3, 4, 5], 2)]
    """
    found: list[Window] = []
    start, done = 0, 1
    while done < len(ids):
        end = min(start + max_length, len(ids))
        found.append(Window(text, ids[start:end], end - done))
        start, done = min(start + stride, end - 1), end  # at least one token to predict from
    return found


class CausalLM:
    """A causal language model with its tokenizer, for scoring texts.

    Attributes:
        limit: the most tokens it takes; None where it does not say.
        vocabulary: the number of its outputs.
    """

    def __init__(self, folder: str, device: str):
        from transformers import AutoModelForCausalLM

        self.tokenizer, self.model = pretrained(AutoModelForCausalLM, folder, device)
        self.device, self.limit = device, token_limit(self.model, self.tokenizer)
        self.vocabulary: int = self.model.config.get_text_config().vocab_size
        self._keeps = "logits_to_keep" in inspect.signature(self.model.forward).parameters

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The text's tokens; with ``special`` those that the tokenizer adds by itself, too."""
        with quiet():
            return self.tokenizer(valid_unicode(text), add_special_tokens=special)["input_ids"]

    def with_start(self, ids: list[int]) -> list[int]:
        """The tokens after the model's BOS token, where it has one and they do not begin so."""
        bos = self.tokenizer.bos_token_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    def losses(
        self, texts: Sequence[str], stride: int, max_length: int, batch_size: int
    ) -> list[Loss]:
        """Each text's loss, read in windows; identical texts are scored once."""
        unique = sorted(set(texts))
        plain = [broken_up(text, self.tokenizer) for text in unique]
        encoded = [self.with_start(self.encode(text, special=True)) for text in plain]
        todo = [
            window
            for i, ids in enumerate(encoded)
            for window in windows(i, ids, stride, max_length)
        ]
        sums = [0.0] * len(unique)
        for window, nats in zip(todo, self.window_losses(todo, batch_size), strict=True):
            sums[window.text] += nats
        place = {text: i for i, text in enumerate(unique)}
        return [Loss(sums[i], encoded[i][1:]) for i in (place[text] for text in texts)]

    def window_losses(self, todo: Sequence[Window], batch_size: int) -> list[float]:
        """The summed loss in nats over each window's scored tokens."""
        nats = [0.0] * len(todo)
        for chosen in batches([len(w.ids) for w in todo], batch_size, tokens=TOKENS):
            for i, loss in zip(chosen, self._forward([todo[i] for i in chosen]), strict=True):
                nats[i] = loss
        return nats

    def _forward(self, part: Sequence[Window]) -> list[float]:
        import torch
        from torch.nn.functional import cross_entropy

        ids, mask = self._padded([w.ids for w in part])
        labels = torch.full_like(ids, -100)
        for i, window in enumerate(part):
            n = len(window.ids)
            labels[i, n - window.scored : n] = ids[i, n - window.scored : n]
        first = min(len(w.ids) - w.scored for w in part) - 1
        with torch.inference_mode():
            logits = self._logits(ids, mask, first)[:, :-1]
            losses = cross_entropy(
                logits.float().transpose(1, 2), labels[:, first + 1 :], reduction="none"
            )
        return losses.double().sum(-1).tolist()

    def _logits(self, ids: Any, mask: Any, first: int) -> Any:
        """(B, T - first, vocabulary) logits from position ``first`` on."""
        import torch

        if first == 0 or not self._keeps:
            return self.model(input_ids=ids, attention_mask=mask).logits[:, first:]
        keep = torch.arange(first, ids.shape[1], device=ids.device)
        return self.model(input_ids=ids, attention_mask=mask, logits_to_keep=keep).logits

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
        """(B, T) ids and mask (1 = a token), filled up on the right: what is there looks back."""
        import torch

        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
        return ids.to(self.device), mask.to(self.device)

    def continuations(
        self, contexts: Sequence[list[int]], choices: Sequence[list[int]], batch_size: int
    ) -> list[list[float]]:
        """``log p(choice | context)`` in nats of every choice after every context.

        Args:
            contexts: tokens, at least one each.
            choices: tokens, at least one each; those with the same beginning share a forward pass.
            batch_size: sequences per forward pass, at most.
        """
        starts = {tuple(choice[:-1]) for choice in choices}
        longest = [s for s in starts if not any(o[: len(s)] == s and o != s for o in starts)]
        found = [[math.nan] * len(choices) for _ in contexts]
        rows = [(i, start) for i in range(len(contexts)) for start in sorted(longest)]
        lengths = [len(contexts[i]) + len(start) for i, start in rows]
        for chosen in batches(lengths, batch_size, tokens=TOKENS):
            part = [rows[k] for k in chosen]
            for (i, start), logprobs in zip(part, self._after(part, contexts), strict=True):
                for k, choice in enumerate(choices):
                    if tuple(choice[:-1]) == start[: len(choice) - 1]:
                        found[i][k] = sum(
                            float(logprobs[at, token]) for at, token in enumerate(choice)
                        )
        return found

    def _after(
        self, part: Sequence[tuple[int, tuple[int, ...]]], contexts: Sequence[list[int]]
    ) -> list[Any]:
        """For each (context, start): (len(start) + 1, vocabulary) log-probabilities after it."""
        import torch

        ids, mask = self._padded([[*contexts[i], *start] for i, start in part])
        first = min(len(contexts[i]) for i, _ in part) - 1
        with torch.inference_mode():
            logits = self._logits(ids, mask, first)
        rows = []
        for row, (i, start) in zip(logits, part, strict=True):
            at = len(contexts[i]) - 1 - first
            rows.append(row[at : at + len(start) + 1].float().log_softmax(-1).cpu())
        return rows

    @cached_property
    def marginal(self) -> Any:
        """(vocabulary,) float64: how often the model writes each token, in nats (log p).

        The mean of its next-token distributions over texts that it draws itself, always the same.
        """
        import torch

        count, length = SAMPLED
        generator = torch.Generator().manual_seed(0)
        total = torch.zeros(self.vocabulary, dtype=torch.float64)
        ids = torch.full((count, 1), self._first)
        step: Any = ids
        cache: dict[str, Any] = {}
        for _ in range(length):
            with torch.inference_mode():
                out = self.model(input_ids=step.to(self.device), use_cache=True, **cache)
            shares = out.logits[:, -1].float().softmax(-1).double().cpu()
            total += shares.sum(0)
            drawn = torch.multinomial(shares, 1, generator=generator)
            ids = torch.cat([ids, drawn], 1)
            memory = getattr(out, "past_key_values", None)
            step, cache = (ids, {}) if memory is None else (drawn, {"past_key_values": memory})
        return (total / (count * length)).log()

    @property
    def _first(self) -> int:
        """The token before a text's first one."""
        known = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, 0)
        return next(i for i in known if i is not None)


def causal_lm(name: str, device: str) -> CausalLM:
    """The shared causal language model of a folder or hub name.

    Raises:
        ModelError: it can't be had, or is no causal language model.
    """
    return load(name, device, "causal language model", CausalLM)
