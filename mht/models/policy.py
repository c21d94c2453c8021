"""The policy: a causal LM with a value head, and the frozen reference it is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from mht.losses import entropy, token_logprobs
from mht.models.logits import response_logits, spread
from mht.models.trunk import Trunk, freeze_below, frozen_copy
from mht.types import Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VALUE_HEAD_FILE = "value_head.safetensors"


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

    Attributes:
        model: the language model.
        value_head: a linear map from the last hidden state to a number, zero at first.
        reference: the model as it was when the policy was made; shares the frozen layers.
        trunk: the frozen layers' output, captured and replayed.
    """

    def __init__(self, model: PreTrainedModel, num_layers_unfrozen: int | Literal["all"] = "all"):
        self.model = model
        self.trunk = Trunk(freeze_below(model, num_layers_unfrozen))
        self.reference = frozen_copy(model)
        width = model.config.get_text_config().hidden_size
        self.value_head = nn.Linear(width, 1, device=model.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that trains: the language model's unfrozen part and the value head."""
        yield from (p for p in self.model.parameters() if p.requires_grad)
        yield from self.value_head.parameters()

    def score(
        self, rollout: Rollout, *, temperature: float = 1.0, with_entropy: bool = False
    ) -> TokenScores:
        """Log-probabilities and values of the response tokens, with gradients; 0 at padding.

        Args:
            rollout: prompts and responses.
            temperature: divides the logits.
            with_entropy: also the entropy of each token's distribution.
        """
        mask = rollout.response_mask
        with self.trunk.replay(rollout.trunk):
            logits, hidden = response_logits(self.model, rollout)
        logprobs = token_logprobs(logits, rollout.response_ids[mask], temperature)
        values = self.value_head(hidden.float()).squeeze(-1)
        return TokenScores(
            spread(logprobs, mask),
            spread(values, mask),
            spread(entropy(logits, temperature), mask) if with_entropy else None,
        )

    @torch.no_grad()
    def with_trunk(self, rollout: Rollout) -> Rollout:
        """The rollout with the frozen layers' output in it, if there are any."""
        if rollout.trunk is not None or not self.trunk.exists:
            return rollout
        response_logits(self.model, rollout)
        return replace(rollout, trunk=self.trunk.output)

    @torch.no_grad()
    def ref_logprobs(self, rollout: Rollout, *, temperature: float = 1.0) -> Tensor:
        """(B, R) log-probabilities of the response tokens under the reference; 0 at padding."""
        mask = rollout.response_mask
        with self.trunk.replay(rollout.trunk):
            logits, _ = response_logits(self.reference, rollout)
        return spread(token_logprobs(logits, rollout.response_ids[mask], temperature), mask)

    def save(self, folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write the model in the Hugging Face layout, its tokenizer and the value head."""
        from safetensors.torch import save_file

        self.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        state = {k: v.detach().cpu().contiguous() for k, v in self.value_head.state_dict().items()}
        save_file(state, Path(folder) / VALUE_HEAD_FILE)

    def load_value_head(self, folder: str | Path) -> bool:
        """Restore the value head that `save` wrote; False where the folder has none."""
        from safetensors.torch import load_file

        file = Path(folder) / VALUE_HEAD_FILE
        if not file.is_file():
            return False
        self.value_head.load_state_dict(load_file(file))
        return True
