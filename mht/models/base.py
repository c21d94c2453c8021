"""What MHT knows of a language model: hidden states, a head, and steps of decoding.

Losses, sampling, PPO, SFT and evaluation read a model through `PolicyModel` alone. Models of
transformers are one implementation (`mht.models.hf.model`). A model that is none of these derives
from `mht.models.language_model.LanguageModel`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mht.models.context import context_window
from mht.models.fast.packed import packed_linears


class Seen(NamedTuple):
    """What a model computes at the last position of n texts.

    Attributes:
        logits: (n, V) of the next token.
        hidden: (n, 1, H) the states under the logits.
    """

    logits: Tensor
    hidden: Tensor

    def rows(self, index: Tensor) -> Seen:
        """The same of some of the texts, (m,) int64."""
        return Seen(self.logits[index], self.hidden[index])


class Decoding(ABC):
    """Texts that a model reads step by step, one in each row."""

    @abstractmethod
    def step(self, tokens: Tensor, mask: Tensor | None = None) -> Seen:
        """Read tokens (n, t) behind the texts.

        Args:
            tokens: int64. The first step reads the prompts, left-padded.
            mask: (n, t) bool, True = a real token; None takes all as real.
        """

    @abstractmethod
    def select(self, index: Tensor) -> None:
        """Continue with the texts of these rows, (m,) int64; a row may be named several times."""


class PolicyModel(ABC):
    """How a language model is read.

    Attributes:
        module: its weights: what trains, is copied and is saved.
    """

    module: nn.Module

    @property
    @abstractmethod
    def width(self) -> int:
        """H, of the hidden states."""

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """V, the number of logits."""

    @property
    @abstractmethod
    def context(self) -> int | None:
        """The most tokens of a text; None has no limit."""

    @property
    @abstractmethod
    def ends(self) -> set[int]:
        """The token ids that end a response by the model's own settings."""

    @property
    @abstractmethod
    def embeddings(self) -> Tensor:
        """(V, D) word vectors."""

    @property
    @abstractmethod
    def layers(self) -> Sequence[nn.Module]:
        """The layers that `model.num_layers_unfrozen` counts, bottom first.

        Each takes hidden states (B, T, H) as its first argument and returns them.

        Raises:
            ModelError: the model has no such list.
        """

    @property
    def norms(self) -> Sequence[nn.Module]:
        """What the last layer's output passes before the head; trains with the top layers."""
        return []

    @property
    @abstractmethod
    def head(self) -> nn.Linear | None:
        """The linear map from hidden states to logits; None where logits are more than that."""

    @abstractmethod
    def hidden(self, wanted: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(N, H), the states under the logits of the N wanted positions, in row-major order.

        Args:
            wanted: (B, K) bool over the last K positions, N of them True.
            input_ids: (B, T) int64.
            attention_mask: (B, T) bool, True = a real token.
        """

    @abstractmethod
    def logits(
        self, wanted: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N, V) logits of the wanted positions, and `hidden` (N, H) of the same."""

    @torch.no_grad()
    def prepare(self) -> None:
        """Make a short pass, for what only a pass shows: what the layers give, whether `head` is.

        Called before any layer is made to pass on a stored output.
        """
        ids = torch.zeros(1, 2, dtype=torch.long, device=self.module.device)
        everywhere = torch.ones_like(ids, dtype=torch.bool)
        self.logits(everywhere, ids, everywhere)

    def start(self, positions: int) -> Decoding:
        """A decoding of texts of at most ``positions`` tokens; its first step reads the prompts."""
        return Rereading(self)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Within the block, and without gradients, passes run on packed weights.

        Raises:
            RuntimeError: gradients are on.
        """
        with packed_linears(self.module):
            yield


class Rereading(Decoding):
    """Reads each text, or the window that the model sees of it, anew for each token.

    Args:
        model: any.
    """

    def __init__(self, model: PolicyModel):
        self.model, self.limit = model, context_window(model.module)
        self.tokens = self.mask = torch.zeros(0, 0, dtype=torch.long)

    def step(self, tokens: Tensor, mask: Tensor | None = None) -> Seen:
        """See `Decoding.step`."""
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        is_first = not self.tokens.numel()
        self.tokens = tokens if is_first else torch.cat([self.tokens, tokens], 1)
        self.mask = real if is_first else torch.cat([self.mask, real], 1)
        last = torch.ones_like(real[:, -1:])
        logits, hidden = self.model.logits(last, self.tokens, self.mask)
        return Seen(logits, hidden[:, None])

    def select(self, index: Tensor) -> None:
        """See `Decoding.select`."""
        self.tokens, self.mask = self.tokens[index], self.mask[index]
