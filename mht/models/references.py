"""Further frozen models beside the policy's own reference, each with a KL penalty of its own.

The penalties add up: with coefficients b_i the reward of a token loses ``sum_i b_i * kl_i``. What a
reference has in common with the policy's own one is held, and computed, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from mht.config import ReferenceConfig
from mht.core.errors import ConfigError, ModelError, UserError
from mht.core.records import Rollout
from mht.losses import kl_estimate
from mht.models.loading import load_causal_lm, load_tokenizer
from mht.models.logprobs import response_logprobs
from mht.models.policy import Policy
from mht.models.readers import policy_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Items = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Reference:
    """One further reference.

    Attributes:
        name: in metrics.
        config: its coefficient, and which prompts it counts for.
        model: frozen.
        shares_trunk: whether the policy's frozen layers are its own lower layers too.
    """

    name: str
    config: ReferenceConfig
    model: nn.Module
    shares_trunk: bool

    def rows(self, items: Items | None, count: int) -> list[int]:
        """Which of ``count`` prompts it counts for, by their rows of the data.

        Raises:
            UserError: it looks at the rows, and there are none.
        """
        if self.config.where is None:
            return list(range(count))
        if items is None:
            raise UserError(
                f"ppo.references.{self.name}.where: looks at each prompt's row of the data, and "
                "there is none: give ppo_step its items, or leave where out"
            )
        return [row for row, item in enumerate(items) if matches(item, self.config.where)]


def matches(item: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether a row of the data has these values.

    >>> matches({"domain": "law", "id": 3}, {"domain": ["law", "tax"]})
    True
    >>> matches({"id": 3}, {"domain": "law"})
    False
    """
    return all(
        name in item and item[name] in (wanted if isinstance(wanted, list) else [wanted])
        for name, wanted in where.items()
    )


class References:
    """All further references of a policy.

    Args:
        configs: by name.
        policy: whose dtype, device and frozen weights they take.
        tokenizer: the policy's.

    Raises:
        ModelError: one can't be loaded, or has another vocabulary.
    """

    def __init__(
        self,
        configs: Mapping[str, ReferenceConfig],
        policy: Policy,
        tokenizer: PreTrainedTokenizerBase,
    ):
        self.policy = policy
        loaded: dict[str, nn.Module] = {}
        self.all: list[Reference] = []
        for name, config in configs.items():
            if config.model not in loaded:
                path = f"ppo.references.{name}.model"
                loaded[config.model] = _load(path, config.model, policy)
                _check_vocabulary(path, config.model, loaded[config.model], tokenizer, policy)
            model = loaded[config.model]
            self.all.append(Reference(name, config, model, _has_trunk(model, policy)))

    def check(self, items: Items) -> None:
        """Every ``where`` is true of some of the data.

        Raises:
            ConfigError: with the values that there are.
        """
        problems = [
            f"ppo.references.{r.name}.where: no row of the training data has {r.config.where}; "
            + "; ".join(_values(items, column) for column in r.config.where or ())
            for r in self.all
            if not r.rows(items, len(items))
        ]
        if problems:
            raise ConfigError(problems)

    @torch.no_grad()
    def penalty(
        self,
        logprobs: Tensor,
        rollout: Rollout,
        items: Items | None = None,
        *,
        temperature: float = 1.0,
        kind: Literal["k1", "k2", "k3"] = "k1",
    ) -> tuple[Tensor, dict[str, float]]:
        """What each token loses to all references.

        Args:
            logprobs: (B, R) nats of the response tokens under the policy, 0 at padding.
            rollout: whose they are.
            items: each prompt's row of the data; None where no reference looks at it.
            temperature: divides the logits.
            kind: the estimator.

        Returns:
            (B, R) reward, and ``kl/<name>/k1_nats``: mean nats per response that the reference
            counts for, 0 if there are none; with ``where`` also ``kl/<name>/share``, of those.
        """
        total, figures = torch.zeros_like(logprobs), {}
        for reference in self.all:
            rows = reference.rows(items, len(rollout))
            k1_nats = 0.0
            if rows:
                index = torch.tensor(rows, device=logprobs.device)
                part, own = rollout.rows(index), logprobs[index]
                ref = self._logprobs(reference, part, temperature)
                total[index] += reference.config.kl_coef * kl_estimate(own, ref, kind)
                k1_nats = float(kl_estimate(own, ref, "k1").sum(1).mean())
            figures[f"kl/{reference.name}/k1_nats"] = k1_nats
            if reference.config.where is not None:
                figures[f"kl/{reference.name}/share"] = len(rows) / len(rollout)
        return total, figures

    def _logprobs(self, reference: Reference, rollout: Rollout, temperature: float) -> Tensor:
        with self.policy.trunk.replay(rollout.trunk if reference.shares_trunk else None):
            return response_logprobs(reference.model, rollout, temperature)


def _load(path: str, name: str, policy: Policy) -> nn.Module:
    dtype = str(policy.reference.dtype).removeprefix("torch.")
    try:
        model = load_causal_lm(name, dtype=dtype, device=policy.device)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    if _shape(model) == _shape(policy.reference):
        _share(model, policy.reference)
    policy_model(model).prepare()
    return model.requires_grad_(False)


def _check_vocabulary(
    path: str,
    name: str,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    policy: Policy,
) -> None:
    try:
        theirs = load_tokenizer(name).get_vocab()
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    own = tokenizer.get_vocab()
    rows, own_rows = (policy_model(m).vocabulary for m in (model, policy.reference))
    if theirs != own or rows != own_rows:
        different = len(theirs.items() ^ own.items())
        raise ModelError(
            f"{path}: {name} has another vocabulary than the policy ({different} differing "
            f"entries, {rows} logits beside {own_rows}), so its probabilities are not those of the "
            "same tokens. Name a model with the same tokenizer"
        )


def _shape(model: nn.Module) -> dict[str, Any]:
    """What decides how a model computes with its weights."""
    settings = model.config.to_dict()
    other = {"architectures", "transformers_version", "use_cache"}
    return {
        key: value
        for key, value in settings.items()
        if key not in other and not key.startswith("_") and not key.endswith("_token_id")
    }


def _share(mine: nn.Module, theirs: nn.Module) -> None:
    """Put the other's modules in place of one's own where the weights are the same."""
    for name, child in list(mine.named_children()):
        other = getattr(theirs, name, None)
        if other is None or type(other) is not type(child) or not _has_weights(child):
            continue
        if _same(child, other):
            setattr(mine, name, other)
        else:
            _share(child, other)


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _same(a: nn.Module, b: nn.Module) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def _has_trunk(model: nn.Module, policy: Policy) -> bool:
    """Whether everything up to the policy's frozen layers is in the model too."""
    own, depth = policy.reference, policy.trunk.depth
    if not depth:
        return False
    reader = policy_model(own)
    top = [*reader.layers[depth:], *reader.norms]
    above = {id(p) for module in top for p in module.parameters()}
    return {id(p) for p in own.parameters()} - above <= {id(p) for p in model.parameters()}


def _values(items: Items, column: str) -> str:
    found = sorted({repr(item[column]) for item in items if column in item})
    shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
    return f"{column} is {shown}" if found else f"there is no column {column}"
