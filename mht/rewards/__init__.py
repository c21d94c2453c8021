"""Rewards: what scores a response, composed in YAML or JSON.

Importing this registers every built-in type; heavy packages load when a type is first used.
"""

from mht.errors import RewardError
from mht.rewards import (  # noqa: F401  (importing a module registers its types)
    classifier,
    composition,
    diversity,
    fluency,
    match,
    postprocess,
    python_file,
    semantic,
    surface,
    walks,
)
from mht.rewards.base import Postprocess, Reward, make_reward

__all__ = ["Postprocess", "Reward", "RewardError", "make_reward"]
