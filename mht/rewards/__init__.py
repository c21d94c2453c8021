"""Rewards: what scores a response, composed in YAML or JSON.

Heavy packages load when a type is first used.
"""

from mht.core.errors import RewardError
from mht.rewards.base import Postprocess, Reward, make_reward

__all__ = ["Postprocess", "Reward", "RewardError", "make_reward"]
