"""Intervals of a paired difference that hold where few clusters tell two runs apart. numpy and scipy only.

Where two runs answer nearly alike, the difference rests on a handful of clusters (images), and a t interval or a
bootstrap, which know only the losses that were seen, covers too seldom: three losses of one kind say little about how
many there are in all. Here gains and losses are limited apart, each by an exact binomial limit, and put together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEW = 30
"""With fewer clusters that differ, a difference has the interval of this module."""


def contributions(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what each cluster adds to the difference of two ratios; they sum to it exactly, and are 0 where both runs
    agree.

    With the runs' sums A', B' and A, B in a stratum, A'/B' - A/B is the sum over clusters of
    (da_c - R db_c) (B + B') / (2 B B'), where da_c and db_c are the cluster's differences above and below the line and
    R = (A + A') / (B + B'). Strata are averaged.

    Args:
        above: (2, G, T) numerators of candidate and baseline, by cluster and stratum.
        below: (2, G, T) denominators; no stratum's sum is 0.

    Returns:
        (G,) e_c.
    """
    tops, bottoms = above.sum(1), below.sum(1)
    ratio = tops.sum(0) / bottoms.sum(0)
    scale = bottoms.sum(0) / (2 * bottoms.prod(0))
    return (((above[0] - above[1]) - ratio * (below[0] - below[1])) * scale).mean(1)


def effective(parts: NDArray[np.float64]) -> float:
    """Return how many equal clusters would tell as much: (sum |e|)^2 / sum e^2 (Kish 1965); 0 where none differs."""
    squares = float(np.square(parts).sum())
    return float(np.abs(parts).sum()) ** 2 / squares if squares > 0 else 0.0


def discordant_interval(
    parts: NDArray[np.float64], reach: float, *, unseen: bool, confidence: float = 0.95
) -> tuple[float, float]:
    """Return an interval of the difference from its gains and its losses.

    The gains P = sum max(e, 0) are worth K = P^2 / sum e^2 equal ones; P is limited as K of G draws are by Clopper and
    Pearson (1934), times their size P / K. So are the losses M. The limits l and u of both make the interval of
    P - M by recovering variances (Zou and Donner 2008, "Construction of confidence limits about effect measures"):

        low = D - sqrt((P - l_P)^2 + (u_M - M)^2)        high = D + sqrt((u_P - P)^2 + (M - l_M)^2)

    Where no gain (or no loss) was seen, its size is taken to be that of the clusters that differ; if none does, that
    of a whole cluster.

    Args:
        parts: (G,) what `contributions` gave.
        reach: How far the two runs can be apart in one cluster.
        unseen: Whether a kind of loss or gain that shows in none of the clusters is allowed for: one that takes the
            whole cluster, in at most 1 - (alpha / 2)^(1 / G) of them.
        confidence: Coverage.
    """
    level, groups = 0.5 + confidence / 2, len(parts)
    hidden = reach * (1 - (1 - level) ** (1 / groups))
    total = float(np.abs(parts).sum())
    size = float(np.square(parts).sum()) / total if total > 0 else reach / groups
    gains, losses = (_limits(np.maximum(side, 0), level, size) for side in (parts, -parts))
    value, least = float(parts.sum()), hidden if unseen else 0.0
    low = value - np.hypot(gains[0], max(losses[1], least))
    high = value + np.hypot(max(gains[1], least), losses[0])
    return max(float(low), -reach), min(float(high), reach)


def _limits(parts: NDArray[np.float64], level: float, size: float) -> tuple[float, float]:
    """How far below and above the sum of these parts (none below 0) its one-sided limits lie."""
    from scipy.special import betaincinv

    groups, total = len(parts), float(parts.sum())
    if total <= 0:
        return 0.0, size * groups * (1 - (1 - level) ** (1 / groups))
    size = float(np.square(parts).sum()) / total
    count = min(total / size, groups - 1e-9)
    low = size * groups * float(betaincinv(count, groups - count + 1, 1 - level))
    high = size * groups * float(betaincinv(count + 1, groups - count, level))
    return total - low, high - total
