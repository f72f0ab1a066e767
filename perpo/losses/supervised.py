"""The loss of supervised fine-tuning (SFT)."""

from torch import Tensor


def sft_loss(policy_logps: Tensor, token_counts: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of an answer's tokens.

    Args:
        policy_logps: (B,) summed log-probabilities.
        token_counts: (B,) tokens of each answer, >= 1.

    Returns:
        (B,) nats per token.
    """
    return -policy_logps / token_counts
