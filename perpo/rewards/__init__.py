"""Rewards: how good an answer is, in [0, 1], given the truth."""

from perpo.rewards.functions import Rewarded, RewardFunction, check_truths, load_reward, score

__all__ = ["RewardFunction", "Rewarded", "check_truths", "load_reward", "score"]
