"""Differences between two configurations that were each run several times (seeds): images and runs are both drawn.

A run's value differs from that of its twin with another seed, and from what it would be on other images. With the
influence u_rg of image g on run r (see `perpo.stats.paired`), I runs of the candidate and J of the baseline on the same
G images, the variance of the difference of the two means is that of two crossed random effects, in the form of
Cameron, Gelbach and Miller 2011, "Robust Inference With Multiway Clustering", equation 2.3:

    V = V_images + V_runs - V_both

    V_images = G / (G - 1) sum_g (mean of u_rg over the candidate's runs - the same of the baseline's)^2
    V_runs   = (1 / I + 1 / J) s^2, s^2 the variance of the runs' values around their side's mean, f = I + J - 2
    V_both   = (1 / I + 1 / J) G / (G - 1) sum_rg (u_rg - mean of u over the side's runs)^2 / f

V_both is what images and runs have in common and the first two both count. Theirs is made of the residuals themselves,
which with two or three runs takes away most of V_images; here it is the interaction of an analysis of variance, whose
expectation is right for any number of runs (Searle, Casella and McCulloch 1992, "Variance Components", section 4.4).
With one run a side V is that of `perpo.stats.paired.cluster_t`.

Few runs tell s^2 badly. Satterthwaite's degrees of freedom, themselves estimated from s^2, then cover 88 to 93%
where it matters (`benchmarks/simulate_tests.py` measures it). So the quantile is Cochran and Cox's (1957, "Experimental
Designs", section 4.14), the mean of the two quantiles weighted by the two variances, and of V_both only 1 - 1 / f is
taken away: what is left of V_runs would else often be cut at 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perpo.stats.discordance import contributions
from perpo.stats.paired import Difference, Sums, cluster_sums, constant_difference, influences, widened

_NO_SPREAD = 1e-12  # below it a standard error is rounding


def crossed_t(
    candidates: Sequence[Sums],
    baselines: Sequence[Sums],
    clusters: Sequence[str] | NDArray,
    strata: Sequence[str] | NDArray | None = None,
    *,
    bounds: tuple[float, float] = (-1.0, 1.0),
) -> Difference:
    """Return the difference of two means over runs, with images and runs as crossed random effects.

    Args:
        candidates: (n,) numerators and (n,) denominators of each run of the configuration in question.
        baselines: The same of the configuration that it is held against; there are more than two runs in all.
        clusters: (n,) labels.
        strata: (n,) labels that weigh the same, or None for one stratum.
        bounds: What the difference of a sample can be at least and at most.
    """
    above, below = cluster_sums([*candidates, *baselines], clusters, strata)
    n, groups = len(np.asarray(candidates[0][0])), above.shape[1]
    sides = (np.arange(len(candidates)), len(candidates) + np.arange(len(baselines)))
    if groups == 0 or not below.sum(1).all():
        return Difference(None, None, None, None, None, n, groups, "undefined")
    values = (above.sum(1) / below.sum(1)).mean(1)
    value = float(values[sides[0]].mean() - values[sides[1]].mean())
    if groups < 2:
        return Difference(value, None, None, None, None, n, groups, "undefined")
    images, between = _variances(influences(above, below), values, sides)
    variance, freedoms = images + between, (groups - 1, len(values) - 2)
    stderr = float(np.sqrt(variance))
    parts = np.mean([contributions(above[[i, j]], below[[i, j]]) for i in sides[0] for j in sides[1]], axis=0)
    if stderr < _NO_SPREAD:
        if abs(value) < _NO_SPREAD and np.abs(parts).any():
            return Difference(value, None, None, None, None, n, groups, "undefined")
        return constant_difference(value, n, groups, bounds)
    share = between / variance
    critical = _quantile(0.05, share, freedoms)
    half, alone = critical * stderr, _quantile(0.05, 1.0, freedoms) * float(np.sqrt(between))
    ends = widened(parts, (value - half, value + half), bounds, alone)
    p, df = _p_value(abs(value) / stderr, share, freedoms), _freedom(critical, freedoms)
    return Difference(value, stderr, *ends, p, n, groups, "crossed-t", df, float(np.sqrt(between)))


def _variances(
    u: NDArray[np.float64], values: NDArray[np.float64], sides: Sequence[NDArray[np.intp]]
) -> tuple[float, float]:
    """V_images, and what V_runs adds to it."""
    groups, freedom = u.shape[1], len(values) - 2
    correction, weight = groups / (groups - 1), sum(1 / len(side) for side in sides)
    images = correction * float(np.square(u[sides[0]].mean(0) - u[sides[1]].mean(0)).sum())
    runs = sum(float(np.square(values[side] - values[side].mean()).sum()) for side in sides) / freedom * weight
    both = sum(float(np.square(u[side] - u[side].mean(0)).sum()) for side in sides) / freedom * weight * correction
    return images, max(runs - (1 - 1 / freedom) * both, 0.0)


def _quantile(alpha: float, share: float, freedoms: tuple[int, int]) -> float:
    """Cochran and Cox's two-sided critical value, where the runs make `share` of the variance."""
    from scipy.special import stdtrit

    images, runs = (float(stdtrit(df, 1 - alpha / 2)) for df in freedoms)
    return (1 - share) * images + share * runs


def _p_value(statistic: float, share: float, freedoms: tuple[int, int]) -> float:
    """The level at which the critical value is this statistic, by halving the interval of its logarithm."""
    low, high = np.log(1e-15), 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _quantile(np.exp(middle), share, freedoms) > statistic else (low, middle)
    return float(np.exp(high))


def _freedom(critical: float, freedoms: tuple[int, int]) -> float:
    """The degrees of freedom of Student's t with this critical value at 5%."""
    from scipy.special import stdtrit

    low, high = float(min(freedoms)), float(max(freedoms))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if stdtrit(middle, 0.975) > critical else (low, middle)
    return high
