"""Losses on log-probabilities: plain tensors, no model."""

from perpo.losses.pairwise import (
    BETA,
    GAMMA,
    best_and_worst,
    dpo_loss,
    lipo_loss,
    pair_weights,
    perpo_loss,
    preference_metrics,
)
from perpo.losses.supervised import sft_loss

__all__ = [
    "BETA",
    "GAMMA",
    "best_and_worst",
    "dpo_loss",
    "lipo_loss",
    "pair_weights",
    "perpo_loss",
    "preference_metrics",
    "sft_loss",
]
