"""Rewards: what scores a response, composed in YAML or JSON.

Importing this registers every built-in type; heavy packages load when a type is first used.
"""

from mht.errors import RewardError
from mht.rewards import (  # noqa: F401  (importing a module registers its types)
    bleurt,
    comet,
    composition,
    diversity,
    domain,
    entities,
    exploration,
    fluency,
    judge,
    layout,
    match,
    meteor,
    mixture,
    nli,
    novelty,
    overlap,
    postprocess,
    presets,
    python_file,
    readability,
    relevance,
    reward_model,
    self_play,
    semantic,
    spelling,
    surface,
    truth,
    walks,
)
from mht.rewards.base import Postprocess, Reward, make_reward

__all__ = ["Postprocess", "Reward", "RewardError", "make_reward"]
