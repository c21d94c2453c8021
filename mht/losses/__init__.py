"""The maths of SFT and PPO as pure functions on tensors.

Shapes: B batch, R response tokens, V vocabulary. Every ``mask`` is True (or 1) at a real response
token. Log-probabilities and KL are in nats. PPO is that of Schulman et al. 2017 (arXiv:1707.06347),
with the use for language models of Ziegler et al. 2019 (arXiv:1909.08593) and Stiennon et al. 2020
(arXiv:2009.01325). On past responses it is the decoupled PPO of Hilton et al. 2021
(arXiv:2110.00641).
"""

from mht.losses.advantages import gae, leave_one_out, token_rewards
from mht.losses.kl import AdaptiveKL, FixedKL, kl_estimate
from mht.losses.logprobs import IGNORED, entropy, token_logprobs
from mht.losses.masked import masked_mean, whiten
from mht.losses.policy import (
    clip_fraction,
    effective_share,
    importance_weights,
    policy_loss,
    policy_losses,
)
from mht.losses.value import explained_variance, value_loss

__all__ = [
    "IGNORED",
    "AdaptiveKL",
    "FixedKL",
    "clip_fraction",
    "effective_share",
    "entropy",
    "explained_variance",
    "gae",
    "importance_weights",
    "kl_estimate",
    "leave_one_out",
    "masked_mean",
    "policy_loss",
    "policy_losses",
    "token_logprobs",
    "token_rewards",
    "value_loss",
    "whiten",
]
