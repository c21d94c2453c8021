"""The policy: a causal LM with a value head, and the frozen reference it is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from mht.models.head import has_plain_head, response_logprobs, response_scores
from mht.models.logits import spread
from mht.models.trunk import Trunk, freeze_below, frozen_copy
from mht.types import Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VALUE_HEAD_FILE = "value_head.safetensors"
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
        for each in (self.model, self.reference):
            has_plain_head(each)  # found out now, while the frozen layers compute

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
            logprobs, entropies, hidden = response_scores(
                self.model, rollout, temperature=temperature, with_entropy=with_entropy
            )
        return TokenScores(
            spread(logprobs, mask),
            spread(self._values(hidden), mask),
            None if entropies is None else spread(entropies, mask),
        )

    @torch.no_grad()
    def sampled_scores(self, rollout: Rollout, *, temperature: float = 1.0) -> TokenScores:
        """`score` as it was when the rollout was sampled; known without another pass if kept."""
        mask = rollout.response_mask
        if rollout.logprobs is None or rollout.entropies is None or rollout.hidden is None:
            return self.score(rollout, temperature=temperature, with_entropy=True)
        values = torch.where(mask, self._values(rollout.hidden), 0.0)
        return TokenScores(rollout.logprobs, values, rollout.entropies)

    def _values(self, hidden: Tensor) -> Tensor:
        """(..., H) last hidden states to (...) values."""
        return self.value_head(hidden.float()).squeeze(-1)

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
        """Write the model in the Hugging Face layout, its tokenizer and the value head.

        Args:
            folder: where to.
            tokenizer: the model's.
            weights: what to write, where this process's modules hold but a part; None takes theirs.
        """
        from safetensors.torch import save_file

        of_model, of_head = weights or (None, self.value_head.state_dict())
        self.model.save_pretrained(folder, state_dict=of_model)
        tokenizer.save_pretrained(folder)
        state = {k: v.detach().cpu().contiguous() for k, v in of_head.items()}
        save_file(state, Path(folder) / VALUE_HEAD_FILE)

    def load_value_head(self, folder: str | Path) -> bool:
        """Restore the value head that `save` wrote; False where the folder has none."""
        from safetensors.torch import load_file

        file = Path(folder) / VALUE_HEAD_FILE
        if not file.is_file():
            return False
        self.value_head.load_state_dict(load_file(file))
        return True
