"""Rewards: how good an answer is, in [0, 1], given the truth."""

from perpo.rewards.functions import Rewarded, check_truths, load_reward, score
from perpo.rewards.table import RewardFunction

__all__ = ["RewardFunction", "Rewarded", "check_truths", "load_reward", "score"]
