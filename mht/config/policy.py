"""What the policy is made of: adapters, its value head, further references, a fresh model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from mht.core.bounds import LONGEST_NAME, Positive, Rate, Weight
from mht.core.component import Section

Name = Annotated[
    str, Field(pattern=r"^[A-Za-z]\w*$", max_length=LONGEST_NAME)
]  # part of a metric's name and of a key


class LoRAConfig(Section):
    """Low-rank adapters that train in place of the layers' weights (arXiv:2106.09685).

    Attributes:
        r: rank of an adapter.
        alpha: an adapter's output is scaled by ``alpha / r``.
        target_modules: which linear layers get an adapter. Either "all-linear", every linear layer
            of those that train, or a list of the model's names, such as [q_proj, v_proj].
        use_rslora: scale by ``alpha / sqrt(r)`` (arXiv:2312.03732).
        dropout: 0 and nothing else: PPO compares probabilities of the same tokens from different
            passes, which dropout would make differ.
    """

    not_here: ClassVar[Mapping[str, str]] = {
        name: f"no such option {name!r} (did you mean {meant!r}?)"
        for name, meant in (("rank", "r"), ("lora_r", "r"), ("lora_alpha", "alpha"))
    }

    r: Positive = 8
    alpha: Rate = 16.0
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    use_rslora: bool = False
    dropout: Weight = 0.0

    @field_validator("dropout")
    @classmethod
    def _no_dropout(cls, dropout: float) -> float:
        if dropout:
            raise ValueError(
                "must be 0: with dropout the trained policy is not the one that sampled, and "
                "ppo.ratio_tolerance would stop the run; leave it out"
            )
        return dropout

    @field_validator("target_modules")
    @classmethod
    def _some_module(cls, names: str | list[str]) -> str | list[str]:
        if not names:
            raise ValueError("is empty: nothing would train; name modules, or set 'all-linear'")
        return names


class ReferenceConfig(Section):
    """A further frozen model that the policy is held near to.

    Attributes:
        model: a folder such as models/base, or a hub name; with the policy's tokenizer.
        kl_coef: nats of KL to it cost this much reward each; does not move.
        where: counts only prompts whose row of the data has these values: column to value, or to a
            list of values. null counts all.
    """

    model: str
    kl_coef: Weight
    where: dict[str, Any] | None = None

    @field_validator("where")
    @classmethod
    def _says_something(cls, where: dict[str, Any] | None) -> dict[str, Any] | None:
        if where is not None and not where:
            raise ValueError("names no column: give one, or null to count every prompt")
        return where
