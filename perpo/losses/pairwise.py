"""Preference losses on plain tensors.

Shapes: B lists of N candidates. `policy_logps` and `reference_logps` are summed log-probabilities of
the candidates' tokens (nats), `rewards` lie in [0, 1], higher is better, in any order. `mask` is True
where a candidate exists; what the other places hold has no influence. All in float32 or float64, and
finite results for any finite input. With s = policy - reference:

    loss = sum over pairs with r_i > r_j of  w_ij softplus(-beta (s_i - s_j))
    w_ij = |r_i - r_j|^gamma / sum over pairs with r_a > r_b of |r_a - r_b|^gamma

(PerPO, arXiv 2502.04371). The rewards say which of a pair is better, a tie weighs 0 for every gamma,
and a list whose rewards are all equal has loss 0 and gradient 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

# The defaults of the published code.
BETA = 0.1
GAMMA = 0.5

# Scores beyond it are cut before they are subtracted, so that finite inputs never give inf - inf.
_LARGEST = 1e30


def perpo_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    rewards: Tensor,
    *,
    beta: float = BETA,
    gamma: float = GAMMA,
    mask: Tensor | None = None,
) -> Tensor:
    """PerPO: every pair of a list counts by how far its rewards are apart.

    Args:
        policy_logps: (B, N), carries the gradient.
        reference_logps: (B, N).
        rewards: (B, N), in [0, 1].
        beta: Scale of the scores, > 0.
        gamma: Power of the margin |r_i - r_j|, >= 0; at 0 all untied pairs weigh the same.
        mask: (B, N) bool, True where a candidate exists; by default everywhere.

    Returns:
        (B,) losses, >= 0.
    """
    weights = pair_weights(rewards, gamma=gamma, mask=mask)
    # softplus(-x) = -logsigmoid(x), which is exact where torch's softplus is cut off
    return -(weights * logsigmoid(beta * _differences(policy_logps, reference_logps, mask))).sum((-2, -1))


def lipo_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    rewards: Tensor,
    *,
    beta: float = BETA,
    mask: Tensor | None = None,
) -> Tensor:
    """Return every untied pair of a list counts the same: PerPO at gamma 0.

    It is not LiPO-lambda, which weighs pairs by their ranks. Arguments and result as in `perpo_loss`.
    """
    return perpo_loss(policy_logps, reference_logps, rewards, beta=beta, gamma=0.0, mask=mask)


def dpo_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    rewards: Tensor,
    *,
    beta: float = BETA,
    mask: Tensor | None = None,
) -> Tensor:
    """DPO (arXiv 2305.18290, equation 7) of each list's best candidate against its worst.

    Among equally good (bad) candidates the first is taken. Arguments and result as in `perpo_loss`.
    """
    pair = torch.stack(best_and_worst(rewards, mask), dim=-1)
    both = None if mask is None else mask.gather(-1, pair)
    policy_pair, reference_pair = policy_logps.gather(-1, pair), reference_logps.gather(-1, pair)
    return lipo_loss(policy_pair, reference_pair, rewards.gather(-1, pair), beta=beta, mask=both)


def best_and_worst(rewards: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the places (B,) of each list's best and worst candidate, the first of equals."""
    absent = torch.zeros_like(rewards, dtype=torch.bool) if mask is None else ~mask
    best = rewards.masked_fill(absent, -torch.inf).argmax(-1)
    return best, rewards.masked_fill(absent, torch.inf).argmin(-1)


def pair_weights(rewards: Tensor, *, gamma: float, mask: Tensor | None = None) -> Tensor:
    """Return the weights w_ij of the formula above.

    Returns:
        (B, N, N), above 0 only where r_i > r_j; a list's weights sum to 1, or to 0 without spread.
    """
    present = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask
    rewards = rewards.masked_fill(~present, 0.0)
    margin = rewards.unsqueeze(-1) - rewards.unsqueeze(-2)
    better = (margin > 0) & present.unsqueeze(-1) & present.unsqueeze(-2)
    # The widest margin is made 1 first: the weights stay the same, and no power of them all underflows.
    widest = (margin * better).amax((-2, -1), keepdim=True)
    weights = torch.where(better, margin / torch.where(widest > 0, widest, 1.0), 1.0).pow(gamma) * better
    total = weights.sum((-2, -1), keepdim=True)
    return weights / torch.where(total > 0, total, 1.0)


@torch.no_grad()
def preference_metrics(
    policy_logps: Tensor,
    reference_logps: Tensor,
    rewards: Tensor,
    *,
    beta: float,
    gamma: float,
    mask: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return what to watch while training; arguments as in `perpo_loss`.

    Returns:
        (B,) tensors. `pair_accuracy`: the weight w_ij of the pairs that the scores order as the rewards do,
        in [0, 1], and `margin`: beta times the weighted mean of s_better - s_worse; both NaN for a list
        without spread. `kl`: mean of -s, which estimates KL(reference || policy) in nats per answer where
        the candidates were sampled from the reference. `no_spread`: 1 for a list whose rewards are equal.
        All are NaN for a list without candidates.
    """
    weights = pair_weights(rewards, gamma=gamma, mask=mask)
    difference = _differences(policy_logps, reference_logps, mask)
    spread = weights.sum((-2, -1)) > 0
    undefined = torch.where(spread, 0.0, torch.nan)
    present = torch.ones_like(rewards) if mask is None else mask.to(rewards.dtype)
    scores = _scores(policy_logps, reference_logps, mask)
    return {
        "pair_accuracy": (weights * (difference > 0)).sum((-2, -1)) + undefined,
        "margin": beta * (weights * difference).sum((-2, -1)) + undefined,
        "kl": -scores.sum(-1) / present.sum(-1),
        "no_spread": torch.where(present.sum(-1) > 0, (~spread).to(rewards.dtype), torch.nan),
    }


def _scores(policy_logps: Tensor, reference_logps: Tensor, mask: Tensor | None) -> Tensor:
    scores = policy_logps.clamp(-_LARGEST, _LARGEST) - reference_logps.clamp(-_LARGEST, _LARGEST)
    return scores if mask is None else torch.where(mask, scores, 0.0)


def _differences(policy_logps: Tensor, reference_logps: Tensor, mask: Tensor | None) -> Tensor:
    scores = _scores(policy_logps, reference_logps, mask)
    return scores.unsqueeze(-1) - scores.unsqueeze(-2)
