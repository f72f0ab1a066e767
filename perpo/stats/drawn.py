"""Numbers that no formula of sums makes: intervals and paired tests from a bootstrap that was drawn before.

A number such as MME's score is made of all samples by a function of its benchmark's own. So the clusters are drawn,
with replacement, and the function is asked again for each draw. Two runs on the same samples draw the same clusters,
so the difference of their draws is a draw of their difference. numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from perpo.stats.discordance import FEW
from perpo.stats.intervals import Estimate
from perpo.stats.paired import FEWEST_OF_A_BOOTSTRAP, Difference

OWN_DRAWS = 1000
"""How often the clusters are drawn."""

_FEWEST_DRAWS = 100  # that gave a number: percentiles of fewer say little
_NO_SPREAD = 1e-12

Draws = Sequence[float | None]
"""What each draw gave; None where it gave no number."""


def draw_clusters(groups: int, draws: int = OWN_DRAWS, seed: int = 0) -> Iterator[NDArray[np.intp]]:
    """Draw clusters with replacement: for each draw the (G,) places of those that were drawn.

    Args:
        groups: G, how many there are.
        draws: How many times.
        seed: Of the random numbers; the same seed draws the same clusters.
    """
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield rng.integers(groups, size=groups)


def drawn_estimate(value: float | None, draws: Draws, n: int, clusters: int) -> Estimate:
    """Return a number with the interval that its draws give: percentiles, and of few clusters a t interval.

    The standard error is the deviation of the draws times sqrt(G / (G - 1)). With fewer than 50 clusters draws hold too
    few different ones, and their percentiles are too narrow: there the interval is the value plus or minus t standard
    errors. With fewer than 10, or where the draws do not differ, there is none.

    Args:
        value: The number; None where there is none.
        draws: What each draw of the clusters gave.
        n: Number of samples.
        clusters: G.
    """
    held = np.array([each for each in draws if each is not None], dtype=np.float64)
    if value is None or clusters < 10 or len(held) < _FEWEST_DRAWS or np.ptp(held) < _NO_SPREAD:
        return Estimate(value, None, None, None, n, clusters, "undefined")
    stderr = _stderr(held, clusters)
    low, high = _ends(value, held, stderr, clusters)
    return Estimate(value, stderr, low, high, n, clusters, "cluster-bootstrap")


def drawn_difference(
    values: tuple[float | None, float | None], draws: tuple[Draws, Draws], n: int, clusters: int, differing: int
) -> Difference:
    """Return candidate minus baseline from the draws of both.

    The p-value is that of the draws centred at 0, (1 + #{|D* - D| >= |D|}) / (draws + 1), as in
    `perpo.stats.cluster_bootstrap`; with fewer than 50 clusters it is that of a t test on the standard error of the
    draws. A bootstrap knows only what was seen: where fewer than 30 clusters tell the runs apart there is no interval
    of equivalence, and "unchanged" cannot be said.

    Args:
        values: The numbers of candidate and baseline; None where there is none.
        draws: Those of the candidate and of the baseline, of the same clusters.
        n: Number of samples.
        clusters: G.
        differing: How many clusters have other scores in one run than in the other.
    """
    from scipy.special import stdtr

    pairs = [(one, other) for one, other in zip(*draws, strict=True) if one is not None and other is not None]
    if None in values:
        return Difference(None, None, None, None, None, n, clusters, "undefined")
    value = float(values[0]) - float(values[1])  # type: ignore[arg-type]
    held = np.array([one - other for one, other in pairs], dtype=np.float64)
    if clusters < 10 or len(held) < _FEWEST_DRAWS or np.ptp(held) < _NO_SPREAD:
        return Difference(value, None, None, None, None, n, clusters, "undefined")
    stderr = _stderr(held, clusters)
    interval = _ends(value, held, stderr, clusters)
    if clusters < FEWEST_OF_A_BOOTSTRAP:
        p = float(2 * stdtr(clusters - 1, -abs(value) / stderr))
    else:
        p = (1 + int((np.abs(held - value) >= abs(value)).sum())) / (len(held) + 1)
    equivalence = interval if differing >= FEW else None
    return Difference(value, stderr, interval, equivalence, p, n, clusters, "cluster-bootstrap")


def _stderr(held: NDArray[np.float64], clusters: int) -> float:
    return float(np.sqrt(clusters / (clusters - 1)) * held.std(ddof=1))


def _ends(value: float, held: NDArray[np.float64], stderr: float, clusters: int) -> tuple[float, float]:
    from scipy.special import stdtrit

    if clusters < FEWEST_OF_A_BOOTSTRAP:
        half = float(stdtrit(clusters - 1, 0.975)) * stderr
        return value - half, value + half
    low, high = (float(end) for end in np.percentile(held, (2.5, 97.5)))
    return low, high
