"""Rewards: what scores a response, composed in YAML or JSON.

Importing this registers every built-in type; heavy packages load when a type is first used.
"""

# ruff: noqa: F401  (importing a module registers its types)
from mht.core.errors import RewardError
from mht.rewards import python_file
from mht.rewards.base import Postprocess, Reward, make_reward
from mht.rewards.composed import composition, mixture, postprocess, self_play
from mht.rewards.learned import (
    bleurt,
    comet,
    entities,
    fluency,
    judge,
    nli,
    presets,
    relevance,
    reward_model,
    semantic,
)
from mht.rewards.text import (
    diversity,
    exploration,
    layout,
    match,
    meteor,
    novelty,
    overlap,
    readability,
    spelling,
    surface,
)
from mht.rewards.truth import domain, evidence
from mht.tasks.randomwalks import reward as walks

__all__ = ["Postprocess", "Reward", "RewardError", "make_reward"]
