"""Differences between two runs on the same samples: intervals and tests that respect clusters. numpy and scipy only.

A metric is a ratio of two sums (see `perpo.benchmarks.metrics`), averaged over T strata: R = mean_t A_t / B_t. The
difference of two runs is D = R' - R, and what one cluster (an image, whatever the strata of its samples) adds
to it is

    u_c = sum over the cluster's samples i of  (a'_i - R'_t b'_i) / (T B'_t) - (a_i - R_t b_i) / (T B_t)

its ratios linearised (Cochran 1977, "Sampling Techniques", section 6.3). Pairing takes away what makes an image
hard for both runs (Miller 2024, arXiv 2411.00640, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perpo.stats.discordance import FEW, contributions, discordant_interval, effective
from perpo.stats.intervals import checked_sums, constant_interval

Sums = tuple[ArrayLike, ArrayLike]
"""(n,) what each sample adds above and below the line, as `perpo.benchmarks.metrics.Definition.sums` gives."""

DRAWS = 10_000
_FEWEST = 50  # clusters that a bootstrap needs: with 10, 8 of 100 equal pairs would be called different
_NO_SPREAD = 1e-12  # below it a standard error is rounding
_CHUNK = 64  # draws that are multiplied at once


@dataclass(frozen=True)
class Difference:
    """Candidate minus baseline, with its uncertainty; None where the samples do not define it.

    Attributes:
        value: The difference, on the scale of the scores.
        stderr: Its clustered standard error.
        interval: The 95% interval.
        equivalence: The interval that must lie within a threshold before the runs count as equal; at least as wide as
            `interval`, see `cluster_t`.
        p_value: Two-sided, of no difference.
        n: Number of samples.
        n_clusters: Number of clusters.
        method: "cluster-t", "cluster-bootstrap", "cluster-exact", "crossed-t" (see `perpo.stats.crossed`) or
            "undefined".
        df: Degrees of freedom of the t interval where they are not G - 1.
        between_runs: The part of the standard error that comes from runs of one configuration that differ.
        parts: Labels of the clusters, and what each adds to the difference, where somebody asked for it; see
            `perpo.stats.stepdown`.
    """

    value: float | None
    stderr: float | None
    interval: tuple[float, float] | None
    equivalence: tuple[float, float] | None
    p_value: float | None
    n: int
    n_clusters: int
    method: str
    df: float | None = None
    between_runs: float | None = None
    parts: tuple[NDArray, NDArray[np.float64]] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class PairedSums:
    """Sums over the clusters of two runs.

    Attributes:
        above: (2, G, T) numerators of candidate and baseline, by cluster and stratum.
        below: (2, G, T) denominators.
        n: Number of samples.
        shift: The difference that all samples have in common, or None where they differ.
    """

    above: NDArray[np.float64]
    below: NDArray[np.float64]
    n: int
    shift: float | None

    @property
    def clusters(self) -> int:
        """G."""
        return self.above.shape[1]

    def difference(self) -> float:
        """D; NaN where a stratum has no denominator in one of the runs."""
        with np.errstate(invalid="ignore", divide="ignore"):
            candidate, baseline = (self.above.sum(1) / self.below.sum(1)).mean(1)
        return float(candidate - baseline)


def paired_sums(
    candidate: Sums, baseline: Sums, clusters: Sequence[str] | NDArray, strata: Sequence[str] | NDArray | None = None
) -> PairedSums:
    """Sum two runs' numerators and denominators by cluster and stratum.

    Args:
        candidate: (n,) numerators and (n,) denominators of the run in question.
        baseline: The same of the run that it is held against; sample i is the same in both.
        clusters: (n,) labels.
        strata: (n,) labels that weigh the same, or None for one stratum.

    Raises:
        ValueError: As `perpo.stats.clustered_ratio`.
    """
    runs = [checked_sums(*run, clusters, strata) for run in (candidate, baseline)]
    return PairedSums(*cluster_sums(runs, clusters, strata), len(runs[0][0]), _shift(runs))


def cluster_sums(
    runs: Sequence[Sums], clusters: Sequence[str] | NDArray, strata: Sequence[str] | NDArray | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (R, G, T) numerators and denominators of R runs by cluster and stratum; arguments as `paired_sums`."""
    arrays = [checked_sums(*run, clusters, strata) for run in runs]
    label = np.unique(np.asarray(clusters), return_inverse=True)[1]
    named = np.zeros(len(label)) if strata is None else np.asarray(strata)
    stratum = np.unique(named, return_inverse=True)[1]
    shape = (int(label.max(initial=-1)) + 1, int(stratum.max(initial=-1)) + 1)
    place = label * shape[1] + stratum

    def summed(values: NDArray) -> NDArray:
        return np.bincount(place, weights=values, minlength=shape[0] * shape[1]).reshape(shape)

    return np.stack([summed(a) for a, _ in arrays]), np.stack([summed(b) for _, b in arrays])


def _shift(runs: list[tuple[NDArray, NDArray]]) -> float | None:
    (a1, b1), (a0, b0) = runs
    if not len(a1) or (b1 != b0).any():
        return None
    if (a1 == a0).all():
        return 0.0
    constant = (b1 == b1[0]).all() and (a1 - a0 == a1[0] - a0[0]).all()
    return float((a1[0] - a0[0]) / b1[0]) if constant else None


def cluster_t(sums: PairedSums, *, bounds: tuple[float, float] = (-1.0, 1.0)) -> Difference:
    """Return the difference with a t interval on its cluster-robust standard error, and its t test.

    The variance is G / (G - 1) sum_c u_c^2 with the t quantile of G - 1 degrees of freedom, as in
    `perpo.stats.clustered_ratio`. Where all samples, or all clusters, have the same difference v, spread cannot be
    seen; the interval is then that of `perpo.stats.constant_interval`, and the p-value the level at which it ends
    at 0. Clusters that all come out even while their samples differ define neither. Intervals are cut to the bounds.

    Where fewer than `perpo.stats.discordance.FEW` clusters tell the runs apart, a t interval covers too seldom, and
    reaches at least as far as that of `perpo.stats.discordance.discordant_interval`. The interval that equivalence is
    told by always does, and allows for losses and gains that show in none of the clusters.

    Args:
        sums: What `paired_sums` gave.
        bounds: What the difference of a sample can be at least and at most.
    """
    from scipy.special import stdtr, stdtrit  # Student's t and its quantile; scipy.stats takes a second to import

    value, groups = sums.difference(), sums.clusters
    if np.isnan(value):
        return Difference(None, None, None, None, None, sums.n, groups, "undefined")
    if groups < 2:
        return Difference(value, None, None, None, None, sums.n, groups, "undefined")
    if sums.shift is not None:
        return constant_difference(value, sums.n, groups, bounds)
    each = influences(sums.above, sums.below)
    u = each[0] - each[1]
    stderr = float(np.sqrt(groups / (groups - 1) * np.square(u).sum()))
    if stderr < _NO_SPREAD and abs(value) < _NO_SPREAD:
        return Difference(value, None, None, None, None, sums.n, groups, "undefined")
    if stderr < _NO_SPREAD:
        return constant_difference(value, sums.n, groups, bounds)
    half = float(stdtrit(groups - 1, 0.975)) * stderr
    ends = widened(contributions(sums.above, sums.below), (value - half, value + half), bounds)
    p = float(2 * stdtr(groups - 1, -abs(value) / stderr))
    return Difference(value, stderr, *ends, p, sums.n, groups, "cluster-t")


def widened(
    parts: NDArray[np.float64], ends: tuple[float, float], bounds: tuple[float, float], between: float = 0.0
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the interval, and that of equivalence, from one that is right where many clusters tell the runs apart.

    Args:
        parts: What `perpo.stats.discordance.contributions` gave.
        ends: The interval.
        bounds: As for `cluster_t`.
        between: Half the width that the spread between runs of one configuration asks for by itself; `ends` has it, and
            the distances of the other intervals' ends from the difference take it in as the root of the sum of squares
            (Zou and Donner 2008, as in `perpo.stats.discordance`).
    """
    value = float(parts.sum())

    def hull(*others: tuple[float, float]) -> tuple[float, float]:
        if between:
            others = tuple(
                (value - float(np.hypot(value - low, between)), value + float(np.hypot(high - value, between)))
                for low, high in others
            )
        lows, highs = zip(ends, *others, strict=True)
        return max(min(lows), bounds[0]), min(max(highs), bounds[1])

    seen = discordant_interval(parts, bounds[1], unseen=False)
    interval = hull(seen) if effective(parts) < FEW else hull()
    return interval, hull(seen, discordant_interval(parts, bounds[1], unseen=True))


def constant_difference(value: float, n: int, groups: int, bounds: tuple[float, float]) -> Difference:
    """Return the difference that all samples have, whose spread cannot be seen; see `cluster_t`."""
    ends = constant_interval(value, groups, bounds, 0.95)
    end = bounds[0] if value > 0 else bounds[1]
    p = min(1.0, 2 * (1 - value / (value - end)) ** groups) if value else 1.0
    return Difference(value, None, ends, ends, p, n, groups, "cluster-exact")


def influences(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, G) what each cluster adds to each run's value: its ratios linearised, as above; a run's sum to 0."""
    totals = below.sum(1, keepdims=True)
    return ((above - above.sum(1, keepdims=True) / totals * below) / totals).mean(2)


def cluster_bootstrap(
    sums: PairedSums, *, bounds: tuple[float, float] = (-1.0, 1.0), draws: int = DRAWS, seed: int = 0
) -> Difference:
    """Return the difference with a bootstrap of its clusters: the statistic itself is drawn again, nothing is
    linearised.

    Each draw takes G clusters with replacement, an image with all its samples of both runs and of all strata
    (Field and Welsh 2007, "Bootstrapping clustered data", the cluster bootstrap). Intervals are percentiles, and where
    few clusters tell the runs apart at least as wide as for `cluster_t`; the
    p-value is that of the draws centred at 0: (1 + #{|D* - D| >= |D|}) / (draws + 1) (Davison and Hinkley 1997,
    "Bootstrap Methods and their Application", section 4.4). Draws in which a stratum loses all its denominators
    are left out. With fewer than 50 clusters draws hold too few different ones, and alarm too often: there it is
    `cluster_t`.

    Args:
        sums: What `paired_sums` gave.
        bounds: As for `cluster_t`.
        draws: How many times.
        seed: Of the random numbers; the same seed gives the same result.
    """
    value, groups = sums.difference(), sums.clusters
    if np.isnan(value) or groups < _FEWEST or sums.shift is not None:
        return cluster_t(sums, bounds=bounds)
    drawn = _draw(sums, draws, np.random.default_rng(seed))
    drawn = drawn[np.isfinite(drawn)]
    stderr = float(drawn.std(ddof=1)) if len(drawn) > 1 else 0.0
    if stderr < _NO_SPREAD:
        return cluster_t(sums, bounds=bounds)
    low, high = (float(end) for end in np.percentile(drawn, (2.5, 97.5)))
    extreme = int((np.abs(drawn - value) >= abs(value)).sum())
    p = (1 + extreme) / (len(drawn) + 1)
    ends = widened(contributions(sums.above, sums.below), (low, high), bounds)
    return Difference(value, stderr, *ends, p, sums.n, groups, "cluster-bootstrap")


def _draw(sums: PairedSums, draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(draws,) the difference in each draw; how often a cluster is drawn is counted, nothing is copied."""
    groups, strata = sums.above.shape[1:]
    columns = np.concatenate([sums.above, sums.below]).transpose(1, 0, 2).reshape(groups, 4 * strata)
    differences = np.empty(draws)
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        counts = np.empty((size, groups))
        for row in range(size):
            counts[row] = np.bincount(rng.integers(groups, size=groups), minlength=groups)
        totals = (counts @ columns).reshape(size, 4, strata)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = (totals[:, :2] / totals[:, 2:]).mean(2)
        differences[start : start + size] = ratios[:, 0] - ratios[:, 1]
    return differences
