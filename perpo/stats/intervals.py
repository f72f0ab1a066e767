"""Means and ratios with standard errors and intervals that respect clusters. numpy and scipy only.

Expressions about one image share its difficulty, so they are no independent draws: the interval
clusters by image. Formula: Miller 2024, "Adding Error Bars to Evals" (arXiv 2411.00640), section 2.2,
whose clustered standard error is the CR0 estimator, here with the CR1 correction G / (G - 1) for the
number of clusters G (Cameron and Miller 2015, "A Practitioner's Guide to Cluster-Robust Inference",
section II). Value plus or minus t standard errors covers too seldom near the ends of the scale, and leaves
it; the interval is Wilson's for the number of independent draws that would have this standard error: see
`wilson_interval`. `benchmarks/simulate_tests.py` measures its coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_FEWEST = 10  # clusters that a bootstrap needs


@dataclass(frozen=True)
class Estimate:
    """A mean or a ratio with its uncertainty.

    Attributes:
        value: The number, on the scale of the scores; None without scores, or without a denominator.
        stderr: Its clustered standard error; None where the scores do not define one.
        ci_low: Lower end of the interval, or None.
        ci_high: Upper end of the interval, or None.
        n: Number of scores.
        n_clusters: Number of clusters.
        ci_method: How the interval was made: "cluster-wilson", "cluster-exact", "cluster-bootstrap", or "undefined".
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
    """Return the mean of scores with an interval that is clustered, and possibly averaged over strata.

    The ratio of `clustered_ratio` with every denominator 1: sum w_i s_i with w_i = 1 / n, or with
    strata (the tasks of a suite, which weigh the same whatever their size) w_i = 1 / (T n_t).

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
    ones = np.ones(len(np.asarray(scores)))
    return clustered_ratio(scores, ones, clusters, strata, bounds=bounds, confidence=confidence)


def clustered_ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    clusters: Sequence[str] | NDArray,
    strata: Sequence[str] | NDArray | None = None,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    confidence: float = 0.95,
) -> Estimate:
    """Return a ratio of two sums with an interval that is clustered, and possibly averaged over strata.

    F1 is such a ratio (numerators 2 tp, denominators 2 tp + fp + fn), and so are precision and recall. In stratum t
    the ratio is R_t = A_t / B_t, the sum of the numerators over that of the denominators; the estimate is the plain
    mean of the T ratios. Its variance is G / (G - 1) sum_c u_c^2, where u_c is the sum over cluster c, whatever the
    strata of its rows, of (a_i - R_t b_i) / (T B_t): the ratio linearised (Cochran 1977, "Sampling Techniques",
    section 6.3). An image that serves several strata is thus one draw. Clusters without any denominator do not count.

    Where every row has the same ratio, the bounds give an interval (`constant_interval`); none is narrower than it.

    Args:
        numerators: (n,) finite numbers, each within `bounds` times its denominator.
        denominators: (n,) finite numbers, at least 0.
        clusters: (n,) labels.
        strata: (n,) labels, or None for one stratum.
        bounds: What the ratio of a row can be at least and at most.
        confidence: Coverage of the interval.

    Returns:
        The estimate, `n` counting all rows. Nothing but the counts is defined where a stratum's
        denominators are all 0, nothing but `value` with fewer than two clusters.

    Raises:
        ValueError: Unequal lengths, a number that is not finite, a negative denominator, or a numerator without one.
    """
    a, b = checked_sums(numerators, denominators, clusters, strata)
    n = len(a)
    if n == 0:
        return Estimate(None, None, None, None, 0, 0, "undefined")
    stratum = np.zeros(n, dtype=int) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    used = b > 0
    _, cluster = np.unique(np.asarray(clusters)[used], return_inverse=True)
    groups = int(cluster.max(initial=-1)) + 1
    totals = np.bincount(stratum, weights=b)
    if not totals.all():
        return Estimate(None, None, None, None, n, groups, "undefined")
    ratios = np.bincount(stratum, weights=a) / totals
    value = float(ratios.mean())
    if groups < 2:
        return Estimate(value, None, None, None, n, groups, "undefined")
    a, b, stratum = a[used], b[used], stratum[used]
    if (a * b[0] == a[0] * b).all():
        low, high = constant_interval(value, groups, bounds, confidence)
        return Estimate(value, None, low, high, n, groups, "cluster-exact")
    u = np.bincount(cluster, weights=(a - ratios[stratum] * b) / (len(totals) * totals[stratum]))
    stderr = float(np.sqrt(groups / (groups - 1) * np.square(u).sum()))
    if stderr < 1e-12:  # every cluster happens to have the same ratio: that is no evidence of certainty
        return Estimate(value, None, None, None, n, groups, "undefined")
    low, high = wilson_interval(value, stderr, freedom(u), bounds, confidence)
    least, most = constant_interval(value, groups, bounds, confidence)  # what shows in no cluster may still be there
    return Estimate(value, stderr, min(low, least), max(high, most), n, groups, "cluster-wilson")


def freedom(influence: NDArray) -> float:
    """Return the degrees of freedom of a clustered variance, from what each cluster adds to the value.

    A variance that few clusters make is itself known badly, whatever their number. Satterthwaite 1946, "An Approximate
    Distribution of Estimates of Variance Components": 2 (sum u^2)^2 over the variance of sum u^2, here estimated by
    sum u^4 - (sum u^2)^2 / G. Normal contributions give about G; K equal ones among many zeros about 2 K. At most
    G - 1.

    Args:
        influence: (G,) u_c, not all 0.
    """
    groups, squares = len(influence), np.square(influence)
    total = squares.sum()
    spread = np.square(squares).sum() - total**2 / groups
    return float(min(groups - 1, 2 * total**2 / spread)) if spread > 0 else groups - 1.0


def wilson_interval(
    value: float, stderr: float, df: float, bounds: tuple[float, float], confidence: float = 0.95
) -> tuple[float, float]:
    """Wilson's score interval (1927) of a value between bounds, for the draws that its standard error is worth.

    On the scale from 0 to 1 a share p of m independent draws has the variance p (1 - p) / m. So a standard error s is
    worth m = p (1 - p) / s^2 draws, times (z / t)^2 because s is estimated with `df` degrees of freedom (Korn and
    Graubard 1998, "Confidence Intervals for Proportions With Small Expected Number of Positive Counts Estimated From
    Survey Data"). The interval holds the shares from which p is at most z standard errors away; it keeps within the
    bounds. A mean of scores that are not 0 or 1 varies less, and is worth the more draws.

    Args:
        value: Strictly between the bounds.
        stderr: Its standard error, above 0.
        df: Degrees of freedom, see `freedom`.
        bounds: What the value can be at least and at most.
        confidence: Coverage of the interval.
    """
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    width = bounds[1] - bounds[0]
    p, s = min(max((value - bounds[0]) / width, 0.0), 1.0), stderr / width
    t = float(stdtrit(df, 0.5 + confidence / 2))
    ratio = (t * s) ** 2 / max(p * (1 - p), np.finfo(float).tiny)  # z^2 / m
    centre, half = p + ratio / 2, float(np.sqrt(ratio * p * (1 - p) + ratio**2 / 4))
    low, high = ((centre + sign * half) / (1 + ratio) for sign in (-1, 1))
    return bounds[0] + width * max(low, 0.0), bounds[0] + width * min(high, 1.0)


def bootstrap_ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    clusters: Sequence[str] | NDArray,
    strata: Sequence[str] | NDArray | None = None,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    draws: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Return `clustered_ratio` with a bootstrap of its clusters in place of the t interval.

    Each draw takes G clusters with replacement, each with all its rows of all strata. The standard error is the
    deviation of the draws times sqrt(G / (G - 1)). The interval is of percentiles, and since these are too narrow with
    few clusters, at the levels of the expanded percentile interval: Phi(sqrt(G / (G - 1)) t), t the quantile of G - 1
    degrees of freedom (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", arXiv 1411.5279). Where
    `clustered_ratio` sees no spread, or fewer than 10 clusters, of which draws hold too few different ones, its
    result stands.

    Args:
        numerators: As there.
        denominators: As there.
        clusters: As there.
        strata: As there.
        bounds: As there.
        draws: How many times.
        seed: Of the random numbers; the same seed gives the same result.

    Raises:
        ValueError: As there.
    """
    from scipy.special import ndtr, stdtrit

    estimate = clustered_ratio(numerators, denominators, clusters, strata, bounds=bounds)
    if estimate.ci_method != "cluster-wilson" or estimate.n_clusters < _FEWEST:
        return estimate
    a, b = checked_sums(numerators, denominators, clusters, strata)
    stratum = np.zeros(len(a), dtype=int) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    used = b > 0
    cluster = np.unique(np.asarray(clusters)[used], return_inverse=True)[1]
    groups, width = estimate.n_clusters, int(stratum.max()) + 1
    place = cluster * width + stratum[used]
    above, below = (
        np.bincount(place, weights=part[used], minlength=groups * width).reshape(groups, width) for part in (a, b)
    )
    counts = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=draws)
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw may leave a stratum without any denominator
        drawn = ((counts @ above) / (counts @ below)).mean(1)
    drawn = drawn[np.isfinite(drawn)]
    wider = np.sqrt(groups / (groups - 1))
    level = ndtr(wider * stdtrit(groups - 1, 0.025))
    low, high = (float(end) for end in np.clip(np.quantile(drawn, (level, 1 - level)), *bounds))
    stderr = float(wider * drawn.std(ddof=1))
    return Estimate(estimate.value, stderr, low, high, estimate.n, groups, "cluster-bootstrap")


def checked_sums(
    numerators: ArrayLike, denominators: ArrayLike, clusters: Sequence[str] | NDArray, strata: Sequence | NDArray | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numerators and denominators as `clustered_ratio` takes them, which says what they may not be."""
    a, b = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if len({len(a), len(b), len(clusters), len(a if strata is None else strata)}) > 1:
        raise ValueError("scores, clusters and strata must have equal lengths")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a score is not finite")
    if (b < 0).any():
        raise ValueError("a denominator is negative")
    if a[b == 0].any():
        raise ValueError("a numerator is not 0 where its denominator is")
    return a, b


def constant_interval(value: float, groups: int, bounds: tuple[float, float], confidence: float) -> tuple[float, float]:
    """Return the interval of a value that every row has, within its bounds.

    At most u = 1 - (alpha / 2)^(1 / G) of the clusters can hold anything else (Clopper and Pearson 1934 with 0 of G),
    so the value lies within u of the way to either bound.
    """
    unseen = 1 - ((1 - confidence) / 2) ** (1 / groups)
    return value - unseen * (value - bounds[0]), value + unseen * (bounds[1] - value)
