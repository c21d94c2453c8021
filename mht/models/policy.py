"""The policy: a causal LM with a value head, and the frozen reference it is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from mht.config.heads import Head
from mht.config.policy import LoRAConfig
from mht.core.errors import ModelError
from mht.core.records import Rollout
from mht.models.context import context_window
from mht.models.heads import load_heads, make_heads, save_heads
from mht.models.hf.adapter import (
    add_adapters,
    has_adapters,
    merged,
    train_adapters,
    without_adapters,
)
from mht.models.logprobs import response_logprobs, response_scores, spread
from mht.models.readers import policy_model
from mht.models.trunk import Trunk, freeze_below, frozen_copy
from mht.models.value.critics import Critic, make_critic
from mht.models.value.files import load_value_head, save_value_head
from mht.models.value.heads import LinearHead

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Weights = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]  # of the model and the value head


@dataclass(frozen=True)
class TokenScores:
    """What a model says of the response tokens of a rollout.

    Attributes:
        logprobs: (B, R) float32, of each response token, at the rollout's temperature.
        values: (B, R) float32, of the state before each token.
        entropies: (B, R) float32 nats, or None where they were not asked for.
    """

    logprobs: Tensor
    values: Tensor
    entropies: Tensor | None = None


class Policy:
    """A causal LM that trains, its value head, and its frozen reference.

    Args:
        model: the language model, in evaluation mode; its trainable part is set here.
        num_layers_unfrozen: how many of the top layers train, or "all".
        lora: adapters that train in place of those layers' weights; None has none, or the one that
            the model comes with.
        value_head: what estimates the value of a state; None is a linear map.
        heads: further heads by name.

    Attributes:
        model: the language model, with its adapters in it.
        critic: what made the value head.
        value_head: from what the model computes to a number per token, zero at first.
        heads: all heads by name, the value head as "value".
        reference: the model as it was when the policy was made; shares all that is frozen.
        trunk: the frozen layers' output, captured and replayed; of a limited context nothing is.
    """

    def __init__(
        self,
        model: nn.Module,
        num_layers_unfrozen: int | Literal["all"] = "all",
        *,
        lora: LoRAConfig | None = None,
        value_head: Critic | Mapping[str, Any] | None = None,
        heads: Mapping[str, Head] | None = None,
    ):
        self.model = model
        frozen = freeze_below(model, num_layers_unfrozen)
        own = has_adapters(model)
        if own and lora is not None:
            raise ModelError(
                "model.lora: the model has an adapter already: leave lora out to train that one, "
                "or give model.merge_and_unload()"
            )
        if own:
            train_adapters(model, frozen)
        elif lora is not None:
            add_adapters(model, list(policy_model(model).layers)[len(frozen) :], lora)
        if not any(p.requires_grad for p in model.parameters()):
            raise ModelError(
                "base_model_name: no weight of the model trains: call requires_grad_(True) on what "
                "should"
            )
        self.trunk = Trunk(frozen if context_window(model) is None else [])
        self.reference = frozen_copy(model, None if own else without_adapters(model))
        for each in (self.model, self.reference):
            policy_model(each).prepare()
        self.critic = make_critic(value_head)
        head = self.critic.head(model, self.reference, frozen=self.trunk.depth)
        self.value_head = head.to(model.device)
        self.heads = {"value": self.value_head, **make_heads(heads or {}, model)}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that trains: the language model's unfrozen part and the heads."""
        for module in (self.model, *self.heads.values()):
            yield from (p for p in module.parameters() if p.requires_grad)

    @property
    def further_heads(self) -> dict[str, nn.Module]:
        """The heads beside the value head."""
        return {name: head for name, head in self.heads.items() if name != "value"}

    def score(
        self, rollout: Rollout, *, temperature: float = 1.0, with_entropy: bool = False
    ) -> TokenScores:
        """Log-probabilities and values of the response tokens, with gradients; 0 at padding.

        Args:
            rollout: prompts and responses.
            temperature: divides the logits.
            with_entropy: also the entropy of each token's distribution.
        """
        logprobs, entropies, hidden = self.passed(
            rollout, temperature=temperature, with_entropy=with_entropy
        )
        values = spread(self.value_head(hidden, rollout), rollout.response_mask)
        return TokenScores(logprobs, values, entropies)

    def passed(
        self, rollout: Rollout, *, temperature: float = 1.0, with_entropy: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Log-probabilities (B, R), entropies (B, R) or None, and what the heads read (N, H).

        Args:
            rollout: with N real response tokens, whose hidden states are in row-major order.
            temperature: divides the logits.
            with_entropy: also the entropy of each token's distribution.
        """
        mask = rollout.response_mask
        with self.trunk.replay(rollout.trunk), self.value_head.watching():
            logprobs, entropies, hidden = response_scores(
                self.model, rollout, temperature=temperature, with_entropy=with_entropy
            )
        entropies = None if entropies is None else spread(entropies, mask)
        return spread(logprobs, mask), entropies, hidden

    @torch.no_grad()
    def sampled_scores(self, rollout: Rollout, *, temperature: float = 1.0) -> TokenScores:
        """`score` as it was when the rollout was sampled; known without another pass if kept."""
        mask = rollout.response_mask
        if rollout.logprobs is None or rollout.entropies is None or rollout.hidden is None:
            return self.score(rollout, temperature=temperature, with_entropy=True)
        if isinstance(self.value_head, LinearHead):
            values = torch.where(mask, self.value_head(rollout.hidden), 0.0)
        else:  # it reads lower activations, which were not kept
            values = self.score(rollout, temperature=temperature).values
        return TokenScores(rollout.logprobs, values, rollout.entropies)

    @torch.no_grad()
    def hidden_states(self, rollout: Rollout) -> Tensor:
        """(B, R, H) last hidden states, of the state before each response token; 0 at padding."""
        mask = rollout.response_mask
        with self.trunk.replay(rollout.trunk):
            _, _, hidden = response_scores(self.model, rollout)
        return hidden.new_zeros(*mask.shape, hidden.shape[-1]).masked_scatter(
            mask[..., None], hidden
        )

    @torch.no_grad()
    def with_trunk(self, rollout: Rollout) -> Rollout:
        """The rollout with the frozen layers' output in it, if there are any."""
        if rollout.trunk is not None or not self.trunk.exists:
            return rollout
        response_logprobs(self.model, rollout, 1.0)
        return replace(rollout, trunk=self.trunk.output)

    @torch.no_grad()
    def ref_logprobs(self, rollout: Rollout, *, temperature: float = 1.0) -> Tensor:
        """(B, R) log-probabilities of the response tokens under the reference; 0 at padding."""
        with self.trunk.replay(rollout.trunk):
            return response_logprobs(self.reference, rollout, temperature)

    def save(
        self,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerBase,
        weights: Weights | None = None,
    ) -> None:
        """Write the model in the Hugging Face layout, its tokenizer and the heads.

        Adapters are merged into what is written, and stay apart here.

        Args:
            folder: where to.
            tokenizer: the model's.
            weights: what to write, where the modules' own are rounded, or but a part; None takes
                theirs.
        """
        of_model, of_head = weights or (None, self.value_head.state_dict())
        merged(self.model).save_pretrained(folder, state_dict=of_model)
        tokenizer.save_pretrained(folder)
        save_value_head(of_head, self.critic, folder)
        save_heads(self.further_heads, folder)

    def load_heads(self, folder: str | Path) -> None:
        """Restore the heads that `save` wrote, as far as the folder has them."""
        self.load_value_head(folder)
        load_heads(self.further_heads, folder)

    def load_value_head(self, folder: str | Path) -> bool:
        """Restore the value head that `save` wrote; False where the folder has none that fits."""
        return load_value_head(self.value_head, self.critic, folder)
