"""Means with standard errors and intervals that respect clusters. numpy and scipy only.

Expressions about one image share its difficulty, so they are no independent draws: the interval
clusters by image. Formula: Miller 2024, "Adding Error Bars to Evals" (arXiv 2411.00640), section 2.2,
whose clustered standard error is the CR0 estimator, here with the CR1 correction G / (G - 1) for the
number of clusters G and the t quantile with G - 1 degrees of freedom (Cameron and Miller 2015, "A
Practitioner's Guide to Cluster-Robust Inference", sections II and VI).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Estimate:
    """A mean with its uncertainty.

    Attributes:
        value: The mean, on the scale of the scores; None without scores.
        stderr: Its clustered standard error; None where the scores do not define one.
        ci_low: Lower end of the interval, or None.
        ci_high: Upper end of the interval, or None.
        n: Number of scores.
        n_clusters: Number of clusters.
        ci_method: How the interval was made: "cluster-t", "cluster-exact", or "undefined".
    """

    value: float | None
    stderr: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    n_clusters: int
    ci_method: str


def clustered_mean(
    scores: ArrayLike,
    clusters: Sequence[str] | NDArray,
    strata: Sequence[str] | NDArray | None = None,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    confidence: float = 0.95,
) -> Estimate:
    """Mean of scores with an interval that is clustered, and possibly averaged over strata.

    With w_i = 1 / n the estimate is sum w_i s_i and its variance G / (G - 1) sum_c u_c^2, where u_c is
    the sum over cluster c of w_i (s_i - mean). With strata (the tasks of a suite) every stratum weighs
    the same, whatever its size: w_i = 1 / (T n_t) and s_i is centred on its own stratum's mean, so
    that an image which serves several tasks is one cluster (linearisation of the average of means).

    When all scores are equal, spread cannot be seen and the standard error is undefined. The scores'
    bounds still give an interval: at most u = 1 - (alpha / 2)^(1 / G) of the clusters can hold anything
    else (Clopper and Pearson 1934 with 0 of G), so the mean lies within u of the way to either bound.

    Args:
        scores: (n,) finite numbers within `bounds`.
        clusters: (n,) labels.
        strata: (n,) labels, or None for one stratum.
        bounds: What a score can be at least and at most; (-1, 1) for a difference of two scores in [0, 1].
        confidence: Coverage of the interval.

    Returns:
        The estimate; with fewer than two clusters only `value` is defined.

    Raises:
        ValueError: Unequal lengths, or a score that is not finite.
    """
    from scipy.stats import t

    s = np.asarray(scores, dtype=np.float64)
    if len(s) != len(clusters) or (strata is not None and len(s) != len(strata)):
        raise ValueError("scores, clusters and strata must have equal lengths")
    if not np.isfinite(s).all():
        raise ValueError("a score is not finite")
    n = len(s)
    if n == 0:
        return Estimate(None, None, None, None, 0, 0, "undefined")
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    stratum = np.zeros(n, dtype=int) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    sizes = np.bincount(stratum)
    means = np.bincount(stratum, weights=s) / sizes
    value = float(means.mean())
    groups = int(cluster.max()) + 1
    if groups < 2:
        return Estimate(value, None, None, None, n, groups, "undefined")
    if (s == s[0]).all():
        low, high = _constant_interval(value, groups, bounds, confidence)
        return Estimate(value, None, low, high, n, groups, "cluster-exact")
    u = np.bincount(cluster, weights=(s - means[stratum]) / (len(sizes) * sizes[stratum]))
    stderr = float(np.sqrt(groups / (groups - 1) * np.square(u).sum()))
    if stderr < 1e-12:  # every cluster happens to have the same mean: that is no evidence of certainty
        return Estimate(value, None, None, None, n, groups, "undefined")
    half = float(t.ppf(0.5 + confidence / 2, groups - 1)) * stderr
    return Estimate(value, stderr, value - half, value + half, n, groups, "cluster-t")


def _constant_interval(
    value: float, groups: int, bounds: tuple[float, float], confidence: float
) -> tuple[float, float]:
    unseen = 1 - ((1 - confidence) / 2) ** (1 / groups)
    return value - unseen * (value - bounds[0]), value + unseen * (bounds[1] - value)
